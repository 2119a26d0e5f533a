-- For wrk: questions as Ringostat asks them, each of a call of its own. Every answer must be 200 and name a destination.
-- Arguments: run (a text, unique), first dialed number, how many dialed numbers, caller's first digits.
-- Numbers go as text: LuaJIT writes long ones as 3.8e+11.

local threads = {}
local head, run, prefix, many, caller
local sent = 0
bad, first_bad = 0, ""

function setup(thread)
   table.insert(threads, thread)
end

function init(args)
   run, prefix, many, caller = args[1], args[2], tonumber(args[3]), args[4]
   head = "POST " .. wrk.path .. " HTTP/1.1\r\nHost: " .. wrk.headers["Host"] ..
      "\r\nUser-Agent: ringostat HTTP Client v1.1\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: "
end

function request()
   sent = sent + 1
   local body = string.format(
      '{"uniqueid":"%s.%d","userfield":"%s%04d","dst":"%s%02d","call_type":"in","step_forward":"webhookNumber%%3A120","utm_source":"google"}',
      run, sent, caller, sent % 10000, prefix, sent % many)
   return string.format("%s%d\r\n\r\n%s", head, #body, body)
end

function response(status, headers, body)
   if status ~= 200 or not body:find('"destination":"[^"]') then
      bad = bad + 1
      first_bad = status .. " " .. body:sub(1, 200)
   end
end

function done(summary, latency, requests)
   local wrong, example = 0, ""
   for _, thread in ipairs(threads) do
      wrong = wrong + thread:get("bad")
      if thread:get("first_bad") ~= "" then example = thread:get("first_bad") end
   end
   local errors = summary.errors
   io.write(string.format(
      "\nBENCH\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%s\n",
      summary.requests, summary.duration, latency:percentile(50), latency:percentile(95), latency:percentile(99),
      errors.connect + errors.read + errors.write + errors.timeout, wrong, example))
end
