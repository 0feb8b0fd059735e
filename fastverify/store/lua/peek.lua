#!lua flags=no-writes
-- First trip of a refresh: what the service needs to check a refresh token's tag before anything is decided.
-- KEYS[1] shard tag. ARGV: handle. Reply: handle, now, secret ('' if there is no session), whether bound to an anti-CSRF token.
-- include: time
-- include: record
local tag, handle = KEYS[1], ARGV[1]
local record, now = tag .. ':s:' .. handle, now_ms()
if not alive(tag, record, now) then
  return { handle, now, '', '' }
end
return { handle, now, unpack(redis.call('HMGET', record, 'secret', 'csrf')) }
