/** The libraries of the bench: how each is found, measured and named. */

import type { RuntimeName } from "../../tools/runtimes.ts";
import type { Adapter } from "./case.ts";

/** One row of the table. */
export interface Library {
  readonly name: string;
  readonly title: string;
  /** The package whose version is shown; without one it needs none. */
  readonly package?: string;
  /** Whether a broker stands between the two. */
  readonly broker?: true;
  /** Whether mutual TLS is asked for; libp2p encrypts without. */
  readonly tls?: true;
  /** Why it does not work on a runtime, where trying takes the process down. */
  readonly unsuitable?: Partial<Record<RuntimeName, string>>;
  /** Whether Hawser's ratio counts it: raw sockets are no library. */
  readonly rival: boolean;
  load(): Promise<Adapter>;
}

/** All of them, in the order of the table. */
export const LIBRARIES: readonly Library[] = [
  {
    name: "raw",
    title: "raw socket, batched by hand",
    rival: false,
    load: async () => (await import("./raw.ts")).raw,
  },
  {
    name: "hawser",
    title: "Hawser",
    rival: false,
    load: async () => (await import("./hawser.ts")).hawser,
  },
  {
    name: "hawser-tls",
    title: "Hawser, strict mutual TLS",
    tls: true,
    rival: false,
    load: async () => (await import("./hawser.ts")).hawser,
  },
  {
    name: "nats",
    title: "NATS (broker between)",
    package: "@nats-io/transport-node",
    broker: true,
    rival: true,
    load: async () => (await import("./nats.ts")).nats,
  },
  {
    name: "ws",
    title: "ws",
    package: "ws",
    rival: true,
    load: async () => (await import("./ws.ts")).ws,
  },
  {
    name: "zeromq",
    title: "zeromq",
    package: "zeromq",
    unsuitable: {
      deno: "its sockets stop after some 500 messages: a native callback does not come any more",
      bun: "its native addon calls uv_poll_init_socket, which Bun does not have: Bun panics",
    },
    rival: true,
    load: async () => (await import("./zeromq.ts")).zeromq,
  },
  {
    name: "grpc",
    title: "@grpc/grpc-js",
    package: "@grpc/grpc-js",
    rival: true,
    load: async () => (await import("./grpc.ts")).grpc,
  },
  {
    name: "moleculer",
    title: "moleculer",
    package: "moleculer",
    rival: true,
    load: async () => (await import("./moleculer.ts")).moleculer,
  },
  {
    name: "libp2p",
    title: "js-libp2p (encrypted)",
    package: "libp2p",
    rival: true,
    load: async () => (await import("./libp2p.ts")).libp2p,
  },
];
