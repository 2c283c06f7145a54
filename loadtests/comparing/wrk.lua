-- What wrk asks for, and what it says at the end: one line of JSON, read by comparing/wrk.py.
-- wrk ... -s wrk.lua URL -- MODE [ARGUMENT]. A mode that does not define `request` sends the same bytes each time, which
-- costs wrk nothing.

local agents = {
  "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36",
  "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.6 Safari/605.1.15",
  "Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0",
  "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36 Edg/131.0.0.0",
}

local modes = {}

function modes.get() end

function modes.post(size)  -- one JSON document of about `size` bytes
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/json"
  wrk.body = '{"name":"' .. string.rep("x", tonumber(size) - 11) .. '"}'
end

function modes.upload(size)
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/octet-stream"
  wrk.body = string.rep("0123456789abcdef", tonumber(size) / 16)
end

function modes.chunked(size)  -- a body in four chunks, without Content-Length
  local piece = tonumber(size) / 4
  local chunk = string.format("%x\r\n%s\r\n", piece, string.rep("c", piece))
  local text = string.format(
    "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/octet-stream\r\nTransfer-Encoding: chunked\r\n\r\n%s0\r\n\r\n",
    wrk.path, wrk.headers["Host"], string.rep(chunk, 4))
  request = function() return text end
end

function modes.headers(count)  -- `count` fields, Host among them, each of 40 bytes
  for i = 2, tonumber(count) do
    wrk.headers[string.format("X-Field-%03d", i)] = string.rep("v", 25)
  end
end

function modes.browser()  -- what browsers send; path, session and page before differ each time
  local fixed = "Host: " .. wrk.headers["Host"] .. "\r\nConnection: keep-alive\r\n"
    .. 'sec-ch-ua: "Chromium";v="131", "Not_A Brand";v="24"\r\nsec-ch-ua-mobile: ?0\r\nsec-ch-ua-platform: "Linux"\r\n'
    .. "Upgrade-Insecure-Requests: 1\r\nAccept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n"
    .. "Sec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-User: ?1\r\nSec-Fetch-Dest: document\r\n"
    .. "Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-GB,en;q=0.9,de;q=0.8\r\nUser-Agent: "
  local number = 0
  request = function()
    number = number + 1
    return "GET /items/" .. number .. "?page=" .. number % 7 .. "&sort=name HTTP/1.1\r\n" .. fixed
      .. agents[number % 4 + 1] .. "\r\nReferer: http://bench.test/items/" .. number - 1
      .. "\r\nCookie: session=" .. number * 7919 .. "f3a9c1e7d5b2; theme=dark; _ga=GA1.1.1024501.1731000000\r\n\r\n"
  end
end

function modes.hosts(count)  -- each request for another of `count` hosts, so that no answer to one is remembered
  local texts, number, total = {}, 0, tonumber(count)
  for i = 1, total do
    texts[i] = "GET " .. wrk.path .. " HTTP/1.1\r\nHost: r" .. i - 1 .. ".bench.test\r\n\r\n"
  end
  request = function()
    number = number % total + 1
    return texts[number]
  end
end

function modes.think(mean)  -- each connection pauses between requests, `mean` milliseconds on average
  delay = function() return math.floor(-tonumber(mean) * math.log(1 - math.random())) end
end

function init(arguments)
  modes[arguments[1] or "get"](arguments[2])
end

function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    'comparing {"requests": %d, "seconds": %.6f, "bytes": %.0f, "p50": %.6f, "p99": %.6f, "p999": %.6f, '
    .. '"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}\n',
    summary.requests, summary.duration / 1e6, summary.bytes, latency:percentile(50) / 1e6, latency:percentile(99) / 1e6,
    latency:percentile(99.9) / 1e6, errors.connect, errors.read, errors.write, errors.status, errors.timeout))
end
