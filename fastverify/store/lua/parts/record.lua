-- The newest mark that concerns a tenant's sessions (ms; 0 if there is none): those that were made up to it have ended.
local function newest_mark(tag, tenant)
  local newest = 0
  for _, mark in ipairs(redis.call('HMGET', tag .. ':marks', tenant, '*')) do
    newest = math.max(newest, tonumber(mark or 0))
  end
  return newest
end

-- Whether a record is there, unexpired and not cut off by a mark; then also the newest mark. Replicas and clock steps can keep a
-- key beyond its time, so the record's own expiry decides, not the key's.
local function alive(tag, record, now)
  local tenant, created, expires = unpack(redis.call('HMGET', record, 'tenant', 'created_at', 'idle_exp'))
  if not tenant or tonumber(expires) <= now then
    return false
  end
  local mark = newest_mark(tag, tenant)
  return mark == 0 or tonumber(created) > mark, mark
end
