// The tiny application on Node's http module: see who.py.
'use strict';
const fs = require('fs');
const http = require('http');

const log = fs.openSync(process.env.SECURITY_LOG, 'a', 0o600);
const STATUS = { early: 413, 204: 204, 304: 304 };
const LATE_MS = 30;

function answer(request, response, body) {
  const url = new URL(request.url.startsWith('/') ? request.url : '/', 'http://localhost');
  const status = STATUS[url.pathname.split('/')[1]] || 200;
  const field = (name) => request.headers[name] || '';
  const line = JSON.stringify({
    method: request.method, target: request.url, victim: field('x-victim'), cookie: field('cookie'),
    length: body.length, ip: field('x-real-ip'),
  });
  fs.writeSync(log, line + '\n');
  const said = url.searchParams.get('say');
  const trailers = JSON.stringify({ trailers: request.trailers });
  const content = said ? Buffer.from(said, 'latin1') : Buffer.from(url.pathname === '/trailers' ? trailers : line);
  response.writeHead(status, { 'Content-Type': 'application/json' });
  if (!url.searchParams.has('late')) return response.end(content);
  const half = content.length >> 1;
  response.write(content.subarray(0, half));
  setTimeout(() => response.end(content.subarray(half)), LATE_MS);
}

http.createServer((request, response) => {
  if (/^\/(lazy|early)\b/.test(request.url)) return answer(request, response, Buffer.alloc(0));
  const pieces = [];
  request.on('data', (piece) => pieces.push(piece));
  request.on('end', () => answer(request, response, Buffer.concat(pieces)));
}).listen(Number(process.argv[2]), '127.0.0.1');
