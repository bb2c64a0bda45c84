/** Configuration files. */

import { texts } from "./hex.ts";

/** Right ones, and some that are not. */
export const CONFIGS: Uint8Array[] = texts(
  'node_id = "node1"\nsecurity = "development"\nlisten = "tcp://127.0.0.1:9100"\n',
  `node_id = "node1"
listen = ["tcp://127.0.0.1:9100", "10.0.0.1:9101"]
pool_size = 2
max_message_size = 16777216
[[peers]]
node_id = "node2"
address = "tcp://127.0.0.1:9102"
[security]
mode = "strict"
[tls]
cert_path = "a.pem"
key_path = "b.pem"
ca_cert_path = "c.pem"
require_client_auth = true
node_id_verification = "CommonName"
[compression]
method = "Lz4"
min_size = 256
[rate_limit]
bucket_size = 100
refill_rate = 50.0
[reconnect]
initial_backoff_ms = 100
jitter = 0.1
multiplier = 2.0
`,
  'node_id = "a"\nrate_limit = "aggressive"\nkeepalive_interval_secs = 5\n',
  'node_id = "a"\n[routes]\ndb = { node_id = "node2", address = "tcp://127.0.0.1:1" }\n',
  "node_id = 1\n",
  'node_id = "a"\npool_size = nan\n',
  'node_id = "a"\n[tls]\n__proto__ = { ca = 1 }\n',
  "a = [[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]\n",
  'node_id = """\n\\u0000"""\n',
  "",
);

/** Names and values. */
export const TOML_WORDS: Uint8Array[] = texts(
  ...["[", "]", "[[", "]]", "{", "}", '"', "'", '"""', "'''", "=", ".", ",", "#", "\n", "\r\n"],
  ...["true", "inf", "-nan", "0x10", "1979-05-27T07:32:00Z", "1e400", "9007199254740993"],
  ...["__proto__", "constructor", "\\u0000", "\\UFFFFFFFF", "environment", "[tls]", "[peers]"],
  ...["node_id", "pool_size", "delivery", "features", "receive_window", "[pool]", "[identity]"],
);
