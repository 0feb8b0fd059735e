#!lua flags=allow-oom
-- Writes one event that no other script writes beside what it does. Not repeatable: a reply that was lost is not asked for again.
-- KEYS[1] tag. ARGV: events to keep, name, handle, user, tenant, why, then more fields and values. Reply: name.
-- include: time
-- include: events
event_log(KEYS[1], ARGV[1], now_ms())(unpack(ARGV, 2))
return { ARGV[2] }
