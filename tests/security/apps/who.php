<?php
// The tiny application for PHP's own server: see who.py.
$target = $_SERVER['REQUEST_URI'];
$behaviour = explode('/', (string) parse_url($target, PHP_URL_PATH))[1] ?? '';
$body = in_array($behaviour, ['lazy', 'early'], true) ? '' : file_get_contents('php://input');
$line = json_encode([
    'method' => $_SERVER['REQUEST_METHOD'], 'target' => $target, 'victim' => $_SERVER['HTTP_X_VICTIM'] ?? '',
    'cookie' => $_SERVER['HTTP_COOKIE'] ?? '', 'length' => strlen($body), 'ip' => $_SERVER['HTTP_X_REAL_IP'] ?? '',
], JSON_INVALID_UTF8_SUBSTITUTE);
file_put_contents(getenv('SECURITY_LOG'), $line . "\n", FILE_APPEND | LOCK_EX);
http_response_code(['early' => 413, '204' => 204, '304' => 304][$behaviour] ?? 200);
header('Content-Type: application/json');
$content = ($_GET['say'] ?? '') ?: $line;
if (!isset($_GET['late'])) {
    echo $content;
    return;
}
$half = intdiv(strlen($content), 2);
echo substr($content, 0, $half);
flush();
usleep(30000);
echo substr($content, $half);
