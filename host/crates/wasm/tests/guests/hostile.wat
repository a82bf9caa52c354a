;; A task with all grants and five places for hostile code: START is the core start function, REALLOC
;; runs before its allocator, BODY before its result, POST is its post-return, and FIELDS are extra
;; declarations. STORES are modules of one memory or one table each. The task is hostile at the first
;; attempt only; at every other attempt it returns `reject` with the id of its message.
(component
  (type $types (instance
    (type $header (tuple string string))
    (type $message (record
      (field "id" string) (field "topic" string)
      (field "headers" (list $header)) (field "body" (list u8))))
    (export "message" (type (eq $message)))
    (type $failure (variant (case "retry" string) (case "reject" string)))
    (export "failure" (type (eq $failure)))))
  (import "loopabull:task/types@0.1.0" (instance $t (type $types)))
  (alias export $t "message" (type $message))
  (alias export $t "failure" (type $failure))
  (import "loopabull:task/context@0.1.0" (instance $context
    (export "attempt" (func (result u32)))
    (export "note" (func (param "key" string) (param "value" string)))))
  (import "loopabull:task/log@0.1.0" (instance $log
    (type $level (enum "trace" "debug" "info" "warn" "error"))
    (export "level" (type $level-x (eq $level)))
    (type $field (tuple string string))
    (export "write" (func
      (param "level" $level-x) (param "text" string) (param "fields" (list $field))))))
  (import "loopabull:task/emit@0.1.0" (instance $emit
    (type $header (tuple string string))
    (export "publish" (func
      (param "topic" string) (param "headers" (list $header)) (param "body" (list u8))
      (result (result (error string)))))))
  (import "loopabull:task/state@0.1.0" (instance $state
    (export "get" (func (param "key" string) (result (option (list u8)))))
    (export "set" (func (param "key" string) (param "value" (list u8))
      (result (result (error string)))))))
  (import "loopabull:task/secrets@0.1.0" (instance $secrets
    (export "get" (func (param "name" string) (result (option string))))))
  (import "wasi:io/poll@0.2.0" (instance $poll
    (export "pollable" (type $p (sub resource)))
    (export "[method]pollable.block" (func (param "self" (borrow $p))))
    (export "poll" (func (param "in" (list (borrow $p))) (result (list u32))))))
  (alias export $poll "pollable" (type $pollable))
  (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock
    (alias outer 1 $pollable (type $p))
    (export "pollable" (type $px (eq $p)))
    (export "subscribe-duration" (func (param "when" u64) (result (own $px))))))
  (import "wasi:io/error@0.2.0" (instance $error (export "error" (type (sub resource)))))
  (alias export $error "error" (type $error-type))
  (import "wasi:io/streams@0.2.0" (instance $streams
    (export "output-stream" (type $output (sub resource)))
    (alias outer 1 $error-type (type $e))
    (alias outer 1 $pollable (type $p))
    (type $own-error (own $e))
    (type $stream-error (variant (case "last-operation-failed" $own-error) (case "closed")))
    (export "stream-error" (type $stream-error-x (eq $stream-error)))
    (type $borrowed (borrow $output))
    (export "[method]output-stream.subscribe" (func (param "self" $borrowed) (result (own $p))))
    (export "[method]output-stream.write-zeroes" (func
      (param "self" $borrowed) (param "len" u64) (result (result (error $stream-error-x)))))
    (export "[method]output-stream.blocking-write-and-flush" (func
      (param "self" $borrowed) (param "contents" (list u8))
      (result (result (error $stream-error-x)))))))
  (alias export $streams "output-stream" (type $output))
  (import "wasi:cli/stdout@0.2.0" (instance $stdout
    (alias outer 1 $output (type $o))
    (export "output-stream" (type $ox (eq $o)))
    (export "get-stdout" (func (result (own $ox))))))
  (import "wasi:cli/stderr@0.2.0" (instance $stderr
    (alias outer 1 $output (type $o))
    (export "output-stream" (type $ox (eq $o)))
    (export "get-stderr" (func (result (own $ox))))))
  (import "wasi:cli/exit@0.2.0" (instance $exit
    (export "exit" (func (param "status" (result))))))
  (import "wasi:random/random@0.2.0" (instance $random
    (export "get-random-bytes" (func (param "len" u64) (result (list u8))))))

  (core func $attempt (canon lower (func $context "attempt")))
  (core module $memory
    (import "host" "attempt" (func $attempt (result i32)))
    (memory (export "memory") PAGES)
    (global $hostile (export "hostile") (mut i32) (i32.const 0))
    (global $free (mut i32) (i32.const 8192))
    (func $wake (global.set $hostile (i32.eq (call $attempt) (i32.const 1))))
    (start $wake)
    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
      (if (global.get $hostile) (then REALLOC))
      (global.set $free (i32.and (i32.add (global.get $free) (i32.const 15)) (i32.const -16)))
      (global.get $free)
      (global.set $free (i32.add (global.get $free) (local.get 3)))))
  (core instance $mem (instantiate $memory
    (with "host" (instance (export "attempt" (func $attempt))))))
  (alias core export $mem "memory" (core memory $m))
  (alias core export $mem "cabi_realloc" (core func $realloc))

  (core func $note (canon lower (func $context "note") (memory (core memory $m))))
  (core func $write-log (canon lower (func $log "write") (memory (core memory $m))))
  (core func $publish (canon lower (func $emit "publish")
    (memory (core memory $m)) (realloc (core func $realloc))))
  (core func $get-state (canon lower (func $state "get")
    (memory (core memory $m)) (realloc (core func $realloc))))
  (core func $set-state (canon lower (func $state "set")
    (memory (core memory $m)) (realloc (core func $realloc))))
  (core func $secret (canon lower (func $secrets "get")
    (memory (core memory $m)) (realloc (core func $realloc))))
  (core func $block (canon lower (func $poll "[method]pollable.block")))
  (core func $poll-all (canon lower (func $poll "poll")
    (memory (core memory $m)) (realloc (core func $realloc))))
  (core func $drop-pollable (canon resource.drop $pollable))
  (core func $after (canon lower (func $clock "subscribe-duration")))
  (core func $ready (canon lower (func $streams "[method]output-stream.subscribe")))
  (core func $zeroes (canon lower (func $streams "[method]output-stream.write-zeroes")
    (memory (core memory $m))))
  (core func $write (canon lower
    (func $streams "[method]output-stream.blocking-write-and-flush") (memory (core memory $m))))
  (core func $drop-stream (canon resource.drop $output))
  (core func $out (canon lower (func $stdout "get-stdout")))
  (core func $err (canon lower (func $stderr "get-stderr")))
  (core func $leave (canon lower (func $exit "exit")))
  (core func $bytes (canon lower (func $random "get-random-bytes")
    (memory (core memory $m)) (realloc (core func $realloc))))

  STORES
  (core module $task
    (import "host" "memory" (memory 0))
    (import "host" "hostile" (global $hostile (mut i32)))
    (import "host" "attempt" (func $attempt (result i32)))
    ;; key, value
    (import "host" "note" (func $note (param i32 i32 i32 i32)))
    ;; level, text, fields
    (import "host" "log" (func $log (param i32 i32 i32 i32 i32)))
    ;; topic, headers, body, address of the result
    (import "host" "publish" (func $publish (param i32 i32 i32 i32 i32 i32 i32)))
    ;; key, address of the result
    (import "host" "get-state" (func $get-state (param i32 i32 i32)))
    ;; key, value, address of the result
    (import "host" "set-state" (func $set-state (param i32 i32 i32 i32 i32)))
    ;; name, address of the result
    (import "host" "secret" (func $secret (param i32 i32 i32)))
    (import "host" "block" (func $block (param i32)))
    ;; pollables, address of the result
    (import "host" "poll" (func $poll (param i32 i32 i32)))
    (import "host" "drop-pollable" (func $drop-pollable (param i32)))
    ;; nanoseconds
    (import "host" "after" (func $after (param i64) (result i32)))
    (import "host" "ready" (func $ready (param i32) (result i32)))
    ;; stream, how many, address of the result
    (import "host" "zeroes" (func $zeroes (param i32 i64 i32)))
    ;; stream, bytes, address of the result
    (import "host" "write" (func $write (param i32 i32 i32 i32)))
    (import "host" "drop-stream" (func $drop-stream (param i32)))
    (import "host" "out" (func $out (result i32)))
    (import "host" "err" (func $err (result i32)))
    ;; 0 is ok
    (import "host" "exit" (func $exit (param i32)))
    ;; count, address of the result
    (import "host" "random" (func $random (param i64 i32)))
    FIELDS
    (func $begin (if (global.get $hostile) (then START)))
    (start $begin)
    ;; The message: pointer and length of id, topic, headers and body. Address 0 holds `ok`.
    (func $handle (export "handle")
      (param $id i32) (param $id-length i32) (param i32 i32 i32 i32 i32 i32) (result i32)
      (local $n i32) (local $stream i32)
      (if (global.get $hostile) (then BODY))
      (call $fail (i32.const 1) (local.get $id) (local.get $id-length)))
    ;; Returns a failure with a kind, 0 for `retry` and 1 for `reject`, and a text.
    (func $fail (param $kind i32) (param $text i32) (param $length i32) (result i32)
      (i32.store (i32.const 512) (i32.const 1))
      (i32.store (i32.const 516) (local.get $kind))
      (i32.store (i32.const 520) (local.get $text))
      (i32.store (i32.const 524) (local.get $length))
      (i32.const 512))
    (func (export "post") (param i32) (if (global.get $hostile) (then POST))))
  (core instance $i (instantiate $task WITH (with "host" (instance
    (export "memory" (memory $m))
    (export "hostile" (global $mem "hostile"))
    (export "attempt" (func $attempt))
    (export "note" (func $note))
    (export "log" (func $write-log))
    (export "publish" (func $publish))
    (export "get-state" (func $get-state))
    (export "set-state" (func $set-state))
    (export "secret" (func $secret))
    (export "block" (func $block))
    (export "poll" (func $poll-all))
    (export "drop-pollable" (func $drop-pollable))
    (export "after" (func $after))
    (export "ready" (func $ready))
    (export "zeroes" (func $zeroes))
    (export "write" (func $write))
    (export "drop-stream" (func $drop-stream))
    (export "out" (func $out))
    (export "err" (func $err))
    (export "exit" (func $leave))
    (export "random" (func $bytes))))))
  (func $handle (param "message" $message) (result (result (error $failure)))
    (canon lift (core func $i "handle") (memory (core memory $m)) (realloc (core func $realloc))
      (post-return (core func $i "post"))))
  (instance $handler (export "handle" (func $handle)))
  (export "loopabull:task/handler@0.1.0" (instance $handler)))
