#!/bin/bash
# A task source that needs nothing but bash: it speaks the protocol itself. $1 tasks; prints an id a line.
address=${DISBATCH_KVS_URL#redis://}
[[ $address =~ ^(([^:@]*):([^@]*)@)?([^:]+):([0-9]+) ]] || exit 9
exec 3<>"/dev/tcp/${BASH_REMATCH[4]}/${BASH_REMATCH[5]}"
LC_ALL=C
# In one piece: many small ones would wait for each other on the network.
send() {
    local words
    printf -v words '*%d\r\n' $#
    for word; do printf -v words '%s$%d\r\n%s\r\n' "$words" ${#word} "$word"; done
    printf %s "$words" >&3
}
# Sets `answer` to the last string or number of an answer.
receive() {
    local head count
    IFS= read -r -u 3 head; head=${head%$'\r'}
    case $head in
        '*'*) for ((count = ${head#?}; count > 0; count--)); do receive; done ;;
        '$'*) IFS= read -r -N "${head#?}" -u 3 answer; IFS= read -r -u 3 head ;;
        -*) echo "$head" >&2; exit 8 ;;
        *) answer=${head#?} ;;
    esac
}
put() { send RPUSH "$DISBATCH_KVS_PREFIX$1" "$2"; receive; }
get() { send BLPOP "$DISBATCH_KVS_PREFIX$1" 0; receive; }
[ -z "${BASH_REMATCH[3]}" ] || { send AUTH "${BASH_REMATCH[2]}" "${BASH_REMATCH[3]}"; receive; }
put 'task source name' bash
put 'task source done task' 'that is all'
put 'task source result key' R
put 'task source task key' T
for ((n = 0; n < $1; n++)); do put T "echo $n >> ran"; done
put T 'that is all'
for ((n = 0; n < $1; n++)); do
    get 'R done tasks'; id=$answer
    get "R $id"
    echo "$id $answer"
done
