# Replaces ansible-playbook. The script records its start, follows the instructions in the body of the
# message, and records its end. It is called as SCRIPT --inventory X --extra-vars @FILE PLAYBOOK.yml. It
# starts no process except `sleep`, because a load test runs it thousands of times.

# Sets `now` to the milliseconds since 1970. bash has the time in EPOCHREALTIME, in seconds with six decimals.
# Other shells have to start `date`.
look_at_clock() {
    if [ -n "$EPOCHREALTIME" ]; then
        now=${EPOCHREALTIME%[.,]*}${EPOCHREALTIME#*[.,]}
        now=${now%???}
    else
        now=$(date +%s%3N)
    fi
}

# Sets `number` to the value of the key $2 in the text $1, or to the empty string.
number_of() {
    case $1 in
    *"? !unsafe \"$2\" : "*)
        number=${1#*"? !unsafe \"$2\" : "}
        number=${number%%[!0-9]*}
        ;;
    *) number= ;;
    esac
}

# Kills the daemon. The daemon is an ancestor of this script, and the processes between them belong to the
# launcher. If the daemon is already dead, the search meets another process and ends.
kill_daemon() {
    ancestor=$PPID
    while read -r name <"/proc/$ancestor/comm"; do
        case $name in
        loopabull-host) kill -9 "$ancestor" && return ;;
        loopabull*) read -r _ _ _ ancestor _ <"/proc/$ancestor/stat" ;;
        *) return ;;
        esac
    done
}

file=
while [ $# -gt 0 ]; do
    case $1 in
    --syntax-check) exit 0 ;;
    --extra-vars) file=${2#@} ;;
    esac
    shift
done

body=
while IFS= read -r line; do
    case $line in
    '"msg": '*) body=$line ;;
    '"loopabull": '*) message=$line ;;
    esac
done <"$file" || exit 99

id=${message#*'? !unsafe "id" : !unsafe "'}
id=${id%%\"*}
number_of "$message" attempt
attempt=$number
look_at_clock
printf '%s\n' "start $id $attempt $$ $now" >>"$log" || exit 99

# A large body is ignored, because the shell would search it for minutes.
[ ${#body} -lt 4096 ] || body=
number_of "$body" sleep_ms
if [ "${number:-0}" -gt 0 ]; then
    fraction=00$((number % 1000))
    sleep "$((number / 1000)).${fraction#"${fraction%???}"}"
fi

number_of "$body" exit
code=${number:-0}
kill=
case $body in
*'? !unsafe "kill" : !unsafe "before-end"'*) kill=before ;;
*'? !unsafe "kill" : !unsafe "after-end"'*) kill=after ;;
esac
number_of "$body" until
if [ -n "$number" ]; then
    # A run whose daemon died starts again within the same attempt, so the script counts starts, not attempts.
    starts=1
    while [ -e "$log.$id.$starts" ]; do starts=$((starts + 1)); done
    : >"$log.$id.$starts"
    [ "$starts" -le "$number" ] || code=0 kill=
fi

if [ "$kill" = before ]; then
    kill_daemon
    kill -9 $$
fi
look_at_clock
printf '%s\n' "end $id $attempt $$ $code $now" >>"$log" || exit 99
[ "$kill" != after ] || kill_daemon
exit "$code"
