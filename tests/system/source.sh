#!/bin/bash
# A task source with redis-cli alone: the lines of its standard input are tasks; prints the reports.
# REDIS is the command that speaks with the server, PREFIX what its keys begin with.
put() { $REDIS RPUSH "$PREFIX$1" "$2" >/dev/null; }
get() { $REDIS --raw BLPOP "$PREFIX$1" 0 | tail -n 1; }
put 'task source name' 'source.sh'
put 'task source done task' '.'
put 'task source result key' 'results'
put 'task source task key' 'tasks'
while read -r line; do put tasks "$line"; done
put tasks .
for ((n = 0; n < $1; n++)); do get "results $(get 'results done tasks')"; done
