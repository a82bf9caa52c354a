#!/bin/bash
# Makes the recorder usable for the Python loopabull. The script is called as SCRIPT PLAYBOOK.yml -e @FILE. It
# finds the id of the message, which is the only `m-NUMBER` in the file of variables. It rewrites this file in
# the form of loopabull-host and then executes the recorder. The attempt is always 1, because loopabull does
# not count attempts.
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
