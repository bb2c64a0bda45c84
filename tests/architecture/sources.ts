/**
 * The layers of src/: what may import what. Read by layers_check.ts, which is given the files' texts.
 *
 * @module
 */

/** What the types between rooms are: every room below the endpoint may know them. */
const TYPES = ["errors.ts", "options.ts", "stats.ts"];

/**
 * Folder or file of src/ -> what it may import, as prefixes below src/. The longest matching name
 * counts; "" is for the files at the top of src/ that are not named.
 */
export const ALLOWED: Readonly<Record<string, readonly string[]>> = {
  "protocol/": ["protocol/", "errors.ts"],
  "runtime/": [
    "runtime/",
    "errors.ts",
    "transport/transport.ts",
    "transport/address.ts",
    "protocol/message.ts",
    "protocol/datagram/encryption.ts",
    "protocol/v3/crc32_table.ts",
    "protocol/http3.ts",
  ],
  "transport/": [
    ...["transport/", "runtime/", "errors.ts", "show_value.ts"],
    // The bytes of WebSocket and HTTP/3 are pure, as those of Hawser are.
    ...["protocol/websocket", "protocol/webtransport", "protocol/http3.ts"],
  ],
  "peer/": ["peer/", "protocol/", ...TYPES, "runtime/environment.ts", "transport/transport.ts"],
  "keys/": [
    ...["keys/", "certs/command.ts", "certs/files.ts", "certs/usage_error.ts"],
    ...["protocol/text.ts", "runtime/ed25519.ts"],
  ],
  "transports/": ["certs/command.ts", "transport/", "runtime/runtime.ts"],
  "certs/": ["certs/", "protocol/", "errors.ts"],
  "testing/": [
    ...["testing/", "errors.ts", "runtime/environment.ts"],
    ...["transport/address.ts", "transport/transport.ts"],
  ],
  "errors.ts": [],
  "show_value.ts": ["protocol/text.ts"],
  "stats.ts": ["errors.ts", "protocol/v3/round_trips.ts"],
  "metrics.ts": ["peer_info.ts", "show_value.ts", "stats.ts"],
  "options.ts": ["runtime/environment.ts"],
  "own_keys.ts": [
    ...["envelope.ts", "errors.ts", "options.ts", "resolve_keys.ts", "protocol/", "runtime/"],
  ],
  "address_rules.ts": [
    ...TYPES,
    "link_tls.ts",
    "option_reader.ts",
    "resolve_addresses.ts",
    "resolve_options.ts",
    "peer/",
    "transport/",
  ],
  "recipients.ts": [...TYPES, "address_rules.ts", "resolve_addresses.ts", "routing.ts", "peer/"],
  "recipient_info.ts": ["peer_info.ts", "recipients.ts", "stats.ts", "peer/"],
  "send_packet.ts": [...TYPES, "recipients.ts", "send_plan.ts", "peer/"],
  "endpoint.ts": [
    ...[...TYPES, "codec.ts", "events.ts", "failures.ts", "link_tls.ts"],
    ...["listeners.ts", "message_iterator.ts", "own_keys.ts", "peer_info.ts", "routing.ts"],
    ...["address_rules.ts", "recipients.ts", "recipient_info.ts", "security.ts"],
    ...["send_packet.ts", "send_plan.ts", "resolve_addresses.ts", "resolve_options.ts"],
    ...["peer/", "protocol/", "runtime/", "transport/"],
  ],
  "": [
    ...TYPES,
    ...[
      "default_options.ts",
      "events.ts",
      "option_reader.ts",
      "resolve_",
    ],
    ...["show_value.ts", "toml.ts", "toml_names.ts", "protocol/", "peer/", "runtime/"],
    "transport/",
  ],
};

/** Package or `node:` module, as a prefix -> who may import it, as prefixes below src/. */
export const PACKAGES: Readonly<Record<string, readonly string[]>> = {
  "smol-toml": ["toml.ts"],
  "lz4-wasm": ["runtime/lz4.ts"],
  "@peculiar/x509": ["certs/"],
  "reflect-metadata": ["certs/"],
  "node:": ["runtime/", "config_file.ts", "certs/", "keys/"],
};

/** What the pure core may not name: the outside world comes in as arguments. */
export const IMPURE =
  /\b(?:Date\.now|new Date\(\)|performance\b|Math\.random|setTimeout|setInterval|setImmediate|queueMicrotask|Deno\b|Bun\b|process\.|globalThis|crypto\b|fetch\()|(?:from|import)\s*\(?\s*"node:|\bimport\(|\basync\b|\bawait\b|\bPromise\b/;
