-- A whole number as text; Lua's own conversion turns large ones into exponents.
local function whole(number)
  return string.format('%.0f', number)
end
