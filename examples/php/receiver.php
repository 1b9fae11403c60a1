<?php
// Receive events with PHP alone: TASKHOOK_SECRET=whsec_... php -S 127.0.0.1:9000 receiver.php
declare(strict_types=1);

function verify(string $secret, array $server, string $body, int $toleranceS = 300): bool
{
    $id = $server['HTTP_WEBHOOK_ID'] ?? '';
    $timestamp = $server['HTTP_WEBHOOK_TIMESTAMP'] ?? '';
    if ($id === '' || !ctype_digit($timestamp) || abs(time() - (int) $timestamp) > $toleranceS) {
        return false;
    }
    $key = base64_decode(preg_replace('/^whsec_/', '', trim($secret)));
    if (strlen($key) < 16) {  // with an empty key anybody could sign
        throw new RuntimeException('TASKHOOK_SECRET must be the whsec_... of the endpoint');
    }
    $expected = 'v1,' . base64_encode(hash_hmac('sha256', "$id.$timestamp.$body", $key, true));
    foreach (explode(' ', $server['HTTP_WEBHOOK_SIGNATURE'] ?? '') as $signature) {
        if (hash_equals($expected, $signature)) {
            return true;
        }
    }
    return false;
}

$body = file_get_contents('php://input');
if (!verify((string) getenv('TASKHOOK_SECRET'), $_SERVER, $body)) {
    http_response_code(400);
    exit;
}
$event = json_decode($body, true);
$directory = getenv('EVENTS_DIR') ?: 'events';
is_dir($directory) || mkdir($directory);
$file = @fopen("$directory/{$event['id']}.json", 'x');  // an event may come twice; the second file is refused
if ($file !== false) {
    fwrite($file, $body);
    if ($event['type'] === 'task.succeeded') {
        error_log($event['data']['id'] . ' ' . $event['data']['result']['outputs'][0]['url']);
    }
}
http_response_code(204);
