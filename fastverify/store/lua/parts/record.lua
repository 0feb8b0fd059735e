-- Whether a record is there, unexpired and not cut off by a mark (a tenant's or everybody's sessions ended at a time). Replicas and
-- clock steps can keep a key beyond its time, so the record's own expiry decides, not the key's.
local function alive(tag, record, now)
  local tenant, created, expires = unpack(redis.call('HMGET', record, 'tenant', 'created_at', 'idle_exp'))
  if not tenant or tonumber(expires) <= now then
    return false
  end
  for _, mark in ipairs(redis.call('HMGET', tag .. ':marks', tenant, '*')) do
    if mark and tonumber(created) <= tonumber(mark) then
      return false
    end
  end
  return true
end
