-- Milliseconds since the epoch by this primary's clock: the only clock that records are compared with.
local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
