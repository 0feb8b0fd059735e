#!lua flags=no-writes
-- Reads a user's sessions. KEYS[1] shard tag. ARGV: user, tenant or '' for all, 1 for whole records or 0 for the tenant only.
-- Reply: user, then {handle, field, value, ...} of each session, oldest expiry first.
-- include: time
-- include: record
local tag, user, tenant = KEYS[1], ARGV[1], ARGV[2]
local now, reply = now_ms(), { ARGV[1] }
for _, handle in ipairs(redis.call('ZRANGE', tag .. ':u:' .. user, 0, -1)) do
  local record = tag .. ':s:' .. handle
  local its = redis.call('HGET', record, 'tenant')
  if its and (tenant == '' or its == tenant) and alive(tag, record, now) then
    local fields = ARGV[3] == '1' and redis.call('HGETALL', record) or { 'tenant', its }
    reply[#reply + 1] = { handle, unpack(fields) }
  end
end
return reply
