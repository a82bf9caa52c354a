;; Waits for an hour in a call of the host, where the epoch does not interrupt it.
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
  (import "wasi:io/poll@0.2.0" (instance $poll
    (export "pollable" (type $p (sub resource)))
    (export "[method]pollable.block" (func (param "self" (borrow $p))))))
  (alias export $poll "pollable" (type $pollable))
  (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock
    (alias outer 1 $pollable (type $p))
    (export "pollable" (type $px (eq $p)))
    (export "subscribe-duration" (func (param "when" u64) (result (own $px))))))
  (core func $subscribe (canon lower (func $clock "subscribe-duration")))
  (core func $block (canon lower (func $poll "[method]pollable.block")))
  (core module $m
    (import "env" "subscribe" (func $subscribe (param i64) (result i32)))
    (import "env" "block" (func $block (param i32)))
    (memory (export "memory") 1)
    (global $free (mut i32) (i32.const 1024))
    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
      (global.set $free (i32.and (i32.add (global.get $free) (i32.const 15)) (i32.const -16)))
      (global.get $free)
      (global.set $free (i32.add (global.get $free) (local.get 3))))
    (func (export "handle") (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
      (call $block (call $subscribe (i64.const 3600000000000)))
      i32.const 0))
  (core instance $i (instantiate $m (with "env" (instance
    (export "subscribe" (func $subscribe))
    (export "block" (func $block))))))
  (func $handle (param "message" $message) (result (result (error $failure)))
    (canon lift (core func $i "handle") (memory (core memory $i "memory"))
      (realloc (core func $i "cabi_realloc"))))
  (instance $handler (export "handle" (func $handle)))
  (export "loopabull:task/handler@0.1.0" (instance $handler)))
