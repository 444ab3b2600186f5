#!/bin/sh
# Run disbatch-start, which lies beside this file, for the command of this file's name.
case $0 in
*/*) file=$0 ;;
*) file=./$0 ;;
esac
while [ -h "$file" ]; do
    link=$(readlink "$file")
    case $link in
    /*) file=$link ;;
    *) file=${file%/*}/$link ;;
    esac
done
start=${file%/*}/disbatch-start
if ! [ -r "$start" ]; then
    echo "${0##*/}: $start cannot be read: install disbatch again" >&2
    exit 2
fi
IFS= read -r line <"$start"
python=${line#"#!"}
# The system reads no path that contains a blank, or is longer than 127 bytes, from the first line.
if [ -x "$python" ] && { [ "${#line}" -gt 127 ] || [ "$python" != "${python%[[:blank:]]*}" ]; }; then
    exec "$python" "$start" "${file##*/}" "$@"
fi
exec "$start" "${file##*/}" "$@"
