# Replaces ansible-playbook: records its start and its end, and between them follows the
# instructions in the body of the message. Called as SCRIPT --inventory X --extra-vars @FILE
# PLAYBOOK.yml. It starts no process except `sleep`, because a load test runs it thousands of times.

# Sets `now` to the milliseconds since 1970. Only bash has EPOCHREALTIME, in microseconds.
look_at_clock() {
    if [ -n "$EPOCHREALTIME" ]; then
        now=${EPOCHREALTIME%[.,]*}${EPOCHREALTIME#*[.,]}
        now=${now%???}
    else
        now=$(date +%s%3N)
    fi
}

# Sets `number` to the value of the key $2 in $1, or to nothing.
number_of() {
    case $1 in
    *"? !unsafe \"$2\" : "*)
        number=${1#*"? !unsafe \"$2\" : "}
        number=${number%%[!0-9]*}
        ;;
    *) number= ;;
    esac
}

# Kills the daemon, which is an ancestor beyond the launcher's processes. If the daemon is already
# dead, the parent is another process.
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

# A large body is not searched, because that would take the shell minutes.
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
    # A run that was cut off is started again within the same attempt, so starts are counted here.
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
