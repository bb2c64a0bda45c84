/**
 * WebSockets on a server that is there already: `Deno.serve`, `Bun.serve` or `node:http`.
 *
 * @module
 */

import { ConfigError, TransportError } from "../errors.ts";
import {
  acceptKey,
  encodeAccept,
  encodeRefusal,
  judgeHeaders,
  SUBPROTOCOL,
  SUBPROTOCOL_PROOF,
  type UpgradeRequest,
} from "../protocol/websocket_handshake.ts";
import {
  type BunServer,
  type BunWebSocketHandlers,
  bunWebSocketHandlers,
  upgradeBun,
} from "../runtime/bun_upgrade.ts";
import { upgradeDeno, type UpgradeEvents } from "../runtime/deno_upgrade.ts";
import { normalizeHost } from "../runtime/link_info.ts";
import {
  type Duplex,
  type IncomingMessage,
  nodeHeaders,
  nodeRemote,
  refuseUpgrade,
  upgradedLink,
} from "../runtime/node_upgrade.ts";
import { sha1 } from "../runtime/sha1.ts";
import { type Address, formatAddress, parseDialAddress } from "./address.ts";
import type { LinkInfo, Listener, ListenOptions, Transport } from "./transport.ts";
import { WebSocketLink } from "./websocket_link.ts";

export type { BunServer, BunSocket, BunWebSocketHandlers } from "../runtime/bun_upgrade.ts";

const SCHEME = "ws+mount";
/** What an endpoint listens on; there is one mount under it, the one that is registered. */
const LISTEN_ADDRESS = `${SCHEME}://mount:0`;
const UNAVAILABLE = 503;

/** The part of the second argument of a `Deno.serve` handler that is used. */
export interface DenoServeInfo {
  /** Where the request comes from. */
  readonly remoteAddr: object;
}

/** Options of {@linkcode webSocketMount}. */
export interface WebSocketMountOptions {
  /**
   * Origins whose pages in browsers may come in, as browsers name them: "https://example.org".
   * Others are refused; programs that are no browsers name none. Default: none.
   */
  readonly origins?: readonly string[];
}

/** A place where a server hands WebSockets over to an endpoint. See {@linkcode webSocketMount}. */
export interface WebSocketMount extends Transport {
  /** What the endpoint is to `listen` on. */
  readonly address: string;
  /** Where other nodes dial. */
  readonly url: string;
  /** For the handler of `Deno.serve`. */
  readonly handleDeno: (request: Request, info: DenoServeInfo) => Response;
  /** For `fetch` of `Bun.serve`; undefined says that the upgrade was done. */
  readonly handleBun: (request: Request, server: BunServer) => Response | undefined;
  /** For `websocket` of `Bun.serve`. WebSockets of others are left alone. */
  readonly bunWebSocket: BunWebSocketHandlers;
  /** For the event `upgrade` of a `node:http` or `node:https` server, on every runtime. */
  readonly handleUpgrade: (request: IncomingMessage, socket: Duplex, head: Uint8Array) => void;
}

/**
 * Makes a mount for WebSockets that a server of yours accepts. Register it as a transport and
 * listen on its address; then give it the requests for the path that you chose.
 *
 * `url` is where other nodes dial. `wss://` says that the server, or a proxy before it, does TLS:
 * only then can it be used in strict and permissive mode. Certificates of dialers can't be seen
 * here, so in strict mode both sides prove their keys (`identity`) instead.
 *
 * @throws {ConfigError} `url` is no `ws://` or `wss://` address.
 *
 * @example
 * ```ts ignore
 * import { Endpoint, webSocketMount } from "@hawser/hawser";
 *
 * const mount = webSocketMount("wss://node1.example.org/hawser");
 * await using endpoint = new Endpoint({ ...options, transports: [mount], listen: mount.address });
 * await endpoint.start();
 * Deno.serve((request, info) =>
 *   new URL(request.url).pathname === "/hawser"
 *     ? mount.handleDeno(request, info)
 *     : new Response("hello")
 * );
 * ```
 */
export function webSocketMount(url: string, options: WebSocketMountOptions = {}): WebSocketMount {
  const address = parseDialAddress(url, "url");
  if (address.scheme !== "ws" && address.scheme !== "wss") {
    throw new ConfigError("url", "must be a ws:// or wss:// address");
  }
  const mount = new Mount(address, options.origins);
  return {
    scheme: SCHEME,
    priority: 0,
    capabilities: {
      reliable: true,
      ordered: true,
      multiplexed: false,
      encrypted: mount.encrypted,
      peerAuthenticated: false,
      maxMessageSize: undefined,
    },
    address: LISTEN_ADDRESS,
    url: mount.url,
    dial: () => Promise.reject(onlyAccepts(mount.url)),
    // deno-lint-ignore require-await -- what it throws must reach the caller as a rejection
    listen: async (_, options) => mount.listen(options),
    handleDeno: (request, info) => mount.handleDeno(request, info),
    handleBun: (request, server) => mount.handleBun(request, server),
    bunWebSocket: bunWebSocketHandlers(),
    handleUpgrade: (request, socket, head) => mount.handleUpgrade(request, socket, head),
  };
}

/** A request that is let in. */
interface Admitted {
  readonly options: ListenOptions;
  readonly request: UpgradeRequest;
  readonly protocol: string;
  readonly info: LinkInfo;
  readonly release: () => void;
}

class Mount {
  readonly url: string;
  readonly encrypted: boolean;
  readonly #address: Address;
  readonly #origins: ReadonlySet<string>;
  #options: ListenOptions | undefined;

  constructor(address: Address, origins: readonly string[] = []) {
    this.#origins = new Set(origins);
    const { scheme, host, port, path } = address;
    this.#address = address;
    this.url = formatAddress(scheme, host, port, path);
    this.encrypted = scheme === "wss";
  }

  listen(options: ListenOptions): Listener {
    const action = `listen on ${this.url}`;
    if (this.#options !== undefined) {
      const cause = new Error("the mount serves another listener");
      throw new TransportError("ConnectionFailed", `Cannot ${action}: ${cause.message}`, { cause });
    }
    if (options.tls !== undefined && !this.encrypted) {
      throw new TransportError(
        "TlsRequired",
        `Cannot ${action}: ws does not encrypt, and tls is given`,
        { recovery: "let the server use TLS, and give the mount its wss:// address" },
      );
    }
    this.#options = options;
    return {
      address: this.url,
      close: () => {
        if (this.#options === options) this.#options = undefined;
        return Promise.resolve();
      },
    };
  }

  handleDeno(request: Request, { remoteAddr }: DenoServeInfo): Response {
    const judged = this.#judge(request.headers, denoRemote(remoteAddr));
    if (typeof judged === "number") return refusal(judged);
    const { protocol, info, release, options } = judged;
    const { handshakeTimeoutMs } = options;
    try {
      return upgradeDeno(request, protocol, info, handshakeTimeoutMs, this.#events(judged));
    } catch (cause) {
      release();
      this.#report(info.remoteHost, (cause as Error).message, options);
      return refusal(400);
    }
  }

  handleBun(request: Request, server: BunServer): Response | undefined {
    const remote = server.requestIP(request);
    const judged = this.#judge(
      request.headers,
      remote === null ? undefined : { host: remote.address, port: remote.port },
    );
    if (typeof judged === "number") return refusal(judged);
    const { protocol, info, release } = judged;
    if (upgradeBun(request, server, protocol, info, this.#events(judged))) return undefined;
    release();
    this.#report(info.remoteHost, "Bun refused the upgrade", judged.options);
    return refusal(400);
  }

  handleUpgrade(request: IncomingMessage, socket: Duplex, head: Uint8Array): void {
    const judged = request.method === "GET"
      ? this.#judge(nodeHeaders(request), nodeRemote(socket))
      : 405;
    if (typeof judged === "number") return refuseUpgrade(socket, encodeRefusal(judged));
    const { options, info, protocol, release } = judged;
    const inner = upgradedLink(socket, info, options.keepaliveSecs, release);
    const link = new WebSocketLink(inner, info, false);
    inner.open(link.innerEvents);
    inner.write(encodeAccept(acceptKey(judged.request.key, sha1), protocol));
    if (head.length > 0) link.innerEvents.onData(new Uint8Array(head));
    options.onLink(link);
  }

  /** Lets a request in, or says with which status it is refused. */
  #judge(
    headers: { get(name: string): string | null },
    remote: { readonly host: string; readonly port: number } | undefined,
  ): Admitted | number {
    const options = this.#options;
    if (options === undefined || remote === undefined) return UNAVAILABLE;
    const remoteHost = normalizeHost(remote.host);
    const request = judgeHeaders(
      { get: (name) => headers.get(name) ?? undefined },
      this.#origins,
    );
    if ("status" in request) {
      this.#report(remoteHost, request.why, options);
      return request.status;
    }
    const release = options.admit(remoteHost);
    if (release === undefined) return UNAVAILABLE;
    const { scheme, path } = this.#address;
    const proves = this.encrypted && request.offered.has(SUBPROTOCOL_PROOF);
    return {
      options,
      request,
      protocol: proves ? SUBPROTOCOL_PROOF : SUBPROTOCOL,
      info: {
        protocol: scheme,
        localAddress: this.url,
        remoteAddress: formatAddress(scheme, remoteHost, remote.port, path),
        remoteHost,
        encrypted: this.encrypted,
        peerCertificate: undefined,
        proofNeeded: true,
      },
      release,
    };
  }

  #events({ options, release }: Admitted): UpgradeEvents {
    return {
      onLink: (link) => {
        if (this.#options === options) options.onLink(link);
        else link.close();
      },
      onGone: release,
    };
  }

  #report(remoteHost: string, why: string, options: ListenOptions): void {
    const text = `Cannot accept a connection from ${remoteHost}: ${why}`;
    options.onError(new TransportError("HandshakeFailed", text), remoteHost);
  }
}

/** Where a request comes from: a Unix socket has neither host nor port. */
function denoRemote(address: object): { host: string; port: number } {
  const { hostname, port } = address as { hostname?: unknown; port?: unknown };
  return {
    host: typeof hostname === "string" ? hostname : "localhost",
    port: typeof port === "number" ? port : 0,
  };
}

function refusal(status: number): Response {
  const headers: Record<string, string> = status === 426
    ? { upgrade: "websocket", "sec-websocket-version": "13" }
    : {};
  return new Response(null, { status, headers });
}

function onlyAccepts(url: string): TransportError {
  return new TransportError(
    "UnsupportedProtocol",
    `Cannot dial ${LISTEN_ADDRESS}: a mount only accepts`,
    { recovery: `dial ${url}` },
  );
}
