# Stands in for ansible-playbook: records its start and its end, and does in between what the body
# of the message says. Called as SCRIPT --inventory X --extra-vars @FILE PLAYBOOK.yml.
# Without a process of its own, but for `sleep`: a load test starts it thousands of times.

# Sets `now` to the milliseconds since 1970. EPOCHREALTIME is bash's, in microseconds.
look_at_clock() {
    if [ -n "$EPOCHREALTIME" ]; then
        now=${EPOCHREALTIME%[.,]*}${EPOCHREALTIME#*[.,]}
        now=${now%???}
    else
        now=$(date +%s%3N)
    fi
}

# Sets `number` to what stands in $1 under the key $2, or to nothing.
number_of() {
    case $1 in
    *"? !unsafe \"$2\" : "*)
        number=${1#*"? !unsafe \"$2\" : "}
        number=${number%%[!0-9]*}
        ;;
    *) number= ;;
    esac
}

# Kills the daemon, which is an ancestor, behind the launcher's processes. If it is dead already the
# parent is somebody else.
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

# Nothing is looked for in a large body: it would take the shell minutes.
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
    # What is cut off is started again within the same attempt, so the starts are counted here.
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
