/** Row 29 of the bad inputs: twice as many dials as a process may open descriptors. */

import { describe, it } from "node:test";
import type { EndpointOptions } from "../../mod.ts";
import { RUNTIMES } from "../../tools/runtimes.ts";
import { within } from "../bad_input/harness.ts";
import { RawPeer, type RawTls } from "../bad_input/raw_peer.ts";
import { hello, messageV2 } from "../bad_input/wire.ts";
import { TestCa } from "../support/certs.ts";
import { mayRun } from "../support/may_run.ts";
import { makeMessage } from "./actor.ts";
import { Actor } from "./process.ts";

const DESCRIPTORS = 256;
const DIALS = 512;
const SERVED_WITHIN_MS = 1_000;

const prefix = ["sh", "-c", `ulimit -n ${DESCRIPTORS}; exec "$@"`, "sh"];

interface Target {
  port: number;
  tls?: RawTls;
}

/**
 * Says hello and sends one message. Where the endpoint has no room yet it dials again, for as long
 * as it may take until one is served.
 */
async function served(target: Target, nodeId: string): Promise<RawPeer> {
  const attempts = async () => {
    while (true) {
      const peer = await RawPeer.connect({ ...target, localAddress: "127.0.0.99" });
      await peer.write(hello({ node_id: nodeId }));
      if ((await peer.answer()).type === "welcome") return peer;
    }
  };
  const peer = await within(SERVED_WITHIN_MS, attempts(), "no connection was served");
  await peer.write(messageV2(makeMessage(0, 64)));
  return peer;
}

/** Connections from three hosts that say nothing. */
function flood(port: number): Promise<RawPeer[]> {
  return Promise.all(
    Array.from(
      { length: DIALS },
      (_, i) => RawPeer.connect({ port, localAddress: `127.0.0.${2 + i % 3}` }),
    ),
  );
}

async function survives(actor: Actor, options: EndpointOptions, tls?: RawTls): Promise<void> {
  const [address] = await actor.tell({
    do: "start",
    options: { ...options, listen: "tcp://127.0.0.1:0", maxConnectionsPerHost: 100_000 },
  });
  const port = Number(address.split(":").at(-1));
  const target = tls === undefined ? { port } : { port, tls };
  const early = await served(target, "mallory");
  const attackers = await flood(port);
  await early.write(messageV2(makeMessage(1, 64)));
  await actor.until<Record<string, { count: number }>>(
    { do: "received" },
    (received) => received.mallory?.count === 2,
  );
  for (const peer of attackers) peer.close();
  const late = await served(target, "mallory");
  early.close();
  late.close();
}

describe("29. twice as many dials as descriptors", { skip: !mayRun() }, () => {
  for (const runtime of RUNTIMES) {
    it(`29. ${runtime} survives in plain text and serves again within a second`, async () => {
      const actor = new Actor(runtime, { prefix });
      try {
        await survives(actor, { nodeId: "victim", security: "development" });
      } finally {
        await actor.close();
      }
    });

    it(`29. ${runtime} survives with mutual TLS and serves again within a second`, async () => {
      const ca = await TestCa.create();
      const rules = { requireClientAuth: true, nodeIdVerification: "CommonName" } as const;
      const actor = new Actor(runtime, { prefix });
      try {
        await survives(
          actor,
          { nodeId: "victim", tls: { ...await ca.issue("victim"), ca: ca.ca, ...rules } },
          { ...await ca.issue("mallory"), ca: ca.ca },
        );
      } finally {
        await actor.close();
      }
    });
  }
});
