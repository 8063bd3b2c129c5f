-- Sends the requests of the file named after `--` in turns, checks each answer, and prints the figures as JSON.
local threads = {}

function setup(thread) table.insert(threads, thread) end

function init(args)
  plan = dofile(args[1])
  place, wrong, example, raw = 0, 0, '', {}
  for i, ask in ipairs(plan.requests) do
    local headers = {}
    if ask[3] ~= '' then headers['content-type'] = 'application/json' end
    -- wrk adds the length itself when there is a body, even an empty one.
    raw[i] = wrk.format(ask[1], ask[2], headers, ask[1] ~= 'GET' and ask[3] or nil)
  end
end

function request()
  place = place % #raw + 1
  return raw[place]
end

function response(status, headers, body)
  if status ~= plan.status or #body < plan.shortest or #body > plan.longest then
    wrong, example = wrong + 1, status .. ' with ' .. #body .. ' bytes'
  end
end

function done(summary, latency)
  local errors, wrong, example = summary.errors, 0, ''
  for _, thread in ipairs(threads) do
    wrong, example = wrong + thread:get('wrong'), thread:get('example')
  end
  wrong = wrong + errors.connect + errors.read + errors.write + errors.timeout
  print(string.format('{"done": %d, "microseconds": %d, "p50": %d, "p99": %d, "wrong": %d, "example": "%s"}',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), wrong, example))
end
