/**
 * Requests: an answer, an error of the application, a deadline, a cancellation, a refusal.
 *
 * @module
 */

import { Endpoint, HandlerError, RemoteError, TransportError } from "../mod.ts";

const encode = (text: string) => new TextEncoder().encode(text);
const decode = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

const stock = new Map([["rope", 40], ["tar", 3]]);

const store = new Endpoint({
  nodeId: "store",
  listen: "tcp://127.0.0.1:0",
  security: "development",
});
const ship = new Endpoint({ nodeId: "ship", security: "development" });

store.handle("get", ({ payload, from }) => {
  const name = decode(payload);
  const left = stock.get(name);
  // Code and message reach the requester. Of any other error it learns only HANDLER_FAILED.
  if (left === undefined) throw new HandlerError("UNKNOWN_GOODS", `${from}, we have no ${name}`);
  return encode(`${left} left`);
});

// Works until nobody waits any more: that a requester gave up reaches the handler.
store.handle("count", ({ signal, deadline }) => {
  console.log(`  store begins to count, with ${Math.round(deadline! - Date.now())} ms left`);
  return new Promise((_, reject) => {
    signal.addEventListener("abort", () => {
      console.log(`  store stops counting: ${(signal.reason as Error).message}`);
      reject(signal.reason);
    }, { once: true });
  });
}, { concurrency: 1 });

async function ask(what: string, answer: Promise<Uint8Array>): Promise<void> {
  try {
    console.log(`${what}: ${decode(await answer)}`);
  } catch (error) {
    if (error instanceof RemoteError) {
      console.log(`${what}: the store says ${error.remoteCode} "${error.remoteMessage}"`);
    } else if (error instanceof TransportError) console.log(`${what}: ${error.code}`);
    else console.log(`${what}: ${error}`);
  }
}

try {
  await store.start();
  await ship.start();
  await ship.connect({ nodeId: "store", address: store.addresses[0]! });

  await ask("rope", ship.request("store", encode("rope"), { topic: "get" }));
  await ask("gold", ship.request("store", encode("gold"), { topic: "get" }));
  await ask("wrong topic", ship.request("store", encode("rope"), { topic: "got" }));

  // The deadline travels with the request: both sides give up by themselves.
  await ask("deadline", ship.request("store", encode(""), { topic: "count", timeoutMs: 100 }));
  await ask("tar", ship.request("store", encode("tar"), { topic: "get" }));

  const changedMind = new AbortController();
  const counting = ship.request("store", encode(""), {
    topic: "count",
    signal: changedMind.signal,
  });
  // One may count at a time: the second is refused, and did not run.
  await ask("too many", ship.request("store", encode(""), { topic: "count" }));
  changedMind.abort("we sail now");
  await ask("cancelled", counting);
  // What is asked behind the cancel is answered behind it.
  await ask("rope", ship.request("store", encode("rope"), { topic: "get" }));
} finally {
  await ship.close();
  await store.close();
}
