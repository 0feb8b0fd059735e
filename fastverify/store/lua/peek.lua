#!lua flags=no-writes
-- First trip of a refresh: what the service needs to check a refresh token's tag. Whether the session still lives is for the second.
-- KEYS[1] shard tag. ARGV: handle. Reply: handle, now, secret ('' if there is no record), 1 if bound to an anti-CSRF token, handle of the
--       session that acts by this one, or ''.
-- include: time
local tag, handle = KEYS[1], ARGV[1]
local secret, csrf, actor = unpack(redis.call('HMGET', tag .. ':s:' .. handle, 'secret', 'csrf', 'actor'))
return { handle, now_ms(), secret or '', csrf or '', actor or '' }
