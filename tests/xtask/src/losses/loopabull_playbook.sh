#!/bin/bash
# Adapts the Python loopabull to the recorder. The message's id is the only `m-NUMBER` in the file
# of variables. The script rewrites this file in the form of loopabull-host, and then executes the
# recorder. Loopabull does not know the number of an attempt, so it is always 1. Called as SCRIPT
# PLAYBOOK.yml -e @FILE.
for argument; do
    case $argument in
    @*) file=${argument#@} ;;
    esac
done
IFS= read -r -d '' text <"$file"
[[ $text =~ m-[0-9]+ ]] || exit 4
{
    echo '"msg": {? !unsafe "sleep_ms" : 20}'
    echo "\"loopabull\": {? !unsafe \"attempt\" : 1, ? !unsafe \"id\" : !unsafe \"${BASH_REMATCH[0]}\"}"
} >"$file"
exec "${0%/*}/recorder" --extra-vars "@$file"
