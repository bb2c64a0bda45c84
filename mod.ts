/**
 * Hawser is the node-to-node transport for Deno, Bun and Node: an authenticated, encrypted,
 * back-pressured and observable line to every other node of a cluster.
 *
 * @example
 * ```ts
 * import { Endpoint } from "@hawser/hawser";
 *
 * await using a = new Endpoint({
 *   nodeId: "a",
 *   listen: "tcp://127.0.0.1:0",
 *   security: "development",
 * });
 * await a.start();
 * await using b = new Endpoint({ nodeId: "b", security: "development" });
 * await b.start();
 * await b.connect({ nodeId: "a", address: a.addresses[0]! });
 * await b.send("a", new TextEncoder().encode("ahoy"));
 * const { from, payload } = await a.receive();
 * console.log(from, new TextDecoder().decode(payload));
 * ```
 *
 * @module
 */

export { json, type PayloadCodec } from "./src/codec.ts";
export { loadConfigFile } from "./src/config_file.ts";
export { type BroadcastResult, Endpoint, type EndpointConfig } from "./src/endpoint.ts";
export type { SendOptions, StreamOptions, TrySendOptions } from "./src/send_plan.ts";
export {
  type EnvelopeToSign,
  signEnvelope,
  verifyEnvelope,
  type VerifyEnvelopeOptions,
} from "./src/envelope.ts";
export {
  BackpressureError,
  ConfigError,
  type ErrorCode,
  HandshakeError,
  MessageTooLargeError,
  RateLimitedError,
  type RejectCode,
  RemoteError,
  RequestLostError,
  type RequestOutcome,
  TransportError,
  type TransportErrorOptions,
} from "./src/errors.ts";
export type {
  EndpointEventMap,
  EndpointListener,
  HealthChangeDetail,
  PeerDownDetail,
  PeerUpDetail,
  StateChangeDetail,
  TypedEventTarget,
  UndeliveredDetail,
  WarningDetail,
} from "./src/events.ts";
export { metricsText, type MetricsTextOptions } from "./src/metrics.ts";
export type {
  BandwidthOptions,
  ChecksumMode,
  CompressionMethod,
  CompressionOptions,
  DatagramOptions,
  Delivery,
  EndpointOptions,
  IdentityOptions,
  NodeIdVerification,
  PeerAddress,
  PoolOptions,
  PoolStrategy,
  RateLimitOptions,
  RateLimitPreset,
  ReconnectOptions,
  SecurityMode,
  SigningOptions,
  TlsOptions,
  TrustedKeys,
  UseAdvertised,
  WhenFull,
} from "./src/options.ts";
export type { PeerIdentity } from "./src/peer/identity.ts";
export type { Message, MessageHandler } from "./src/peer/inbox.ts";
export type { PeerHealth, PeerState } from "./src/peer/peer.ts";
export {
  type HandleOptions,
  HandlerError,
  type RequestHandler,
  type RequestOptions,
  type TransportRequest,
} from "./src/peer/requests.ts";
export type { StreamHandler } from "./src/peer/stream_handlers.ts";
export { TransportStream } from "./src/peer/web_stream.ts";
export type { ConnectionInfo, PeerInfo } from "./src/peer_info.ts";
export { Backoff, type BackoffOptions } from "./src/protocol/backoff.ts";
export type { Envelope, SignedEnvelope } from "./src/protocol/envelope.ts";
export {
  type EnvelopeRefusal,
  EnvelopeWindow,
  type EnvelopeWindowOptions,
} from "./src/protocol/envelope_window.ts";
export { encodeFrame, FrameDecoder, type FrameDecoderOptions } from "./src/protocol/frame.ts";
export type { ConnectionState } from "./src/protocol/state.ts";
export type { RoundTrip } from "./src/protocol/v3/round_trips.ts";
export type { LaneName } from "./src/protocol/v3/types.ts";
export { TokenBucket, type TokenBucketOptions } from "./src/protocol/token_bucket.ts";
export { RoutingTable, type RoutingTableOptions } from "./src/routing.ts";
export { readSigningKey, type SigningKey } from "./src/runtime/ed25519.ts";
export type { Environment } from "./src/runtime/environment.ts";
export { validateSecurity } from "./src/security.ts";
export type {
  ConnectionMetrics,
  DatagramStats,
  PoolStats,
  ProtocolMetrics,
  RefusedStats,
  TrafficStats,
  TransportStats,
} from "./src/stats.ts";
export { dumpConfig, loadConfig } from "./src/toml.ts";
export { TransportRegistry } from "./src/transport/registry.ts";
export { streamLink, type StreamPair } from "./src/transport/stream_link.ts";
export type {
  BindOptions,
  DatagramRoute,
  DatagramSocket,
  DialOptions,
  Link,
  LinkEvents,
  LinkInfo,
  LinkTls,
  Listener,
  ListenOptions,
  Transport,
  TransportCapabilities,
} from "./src/transport/transport.ts";
export {
  type BunServer,
  type BunSocket,
  type BunWebSocketHandlers,
  type DenoServeInfo,
  type WebSocketMount,
  webSocketMount,
  type WebSocketMountOptions,
} from "./src/transport/websocket_mount.ts";
export { webTransport, type WebTransportOptions } from "./src/transport/webtransport.ts";
