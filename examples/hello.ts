/**
 * Two endpoints in one process, a message each way.
 *
 * Run it with `deno run -A examples/hello.ts`, `bun examples/hello.ts` or `node examples/hello.ts`.
 * In a program of your own the import is `@hawser/hawser`.
 *
 * @module
 */

import { Endpoint } from "../mod.ts";

const encode = (text: string) => new TextEncoder().encode(text);
const decode = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

// Development mode needs no certificates, and says so: nothing is encrypted or verified.
const harbour = new Endpoint({
  nodeId: "harbour",
  listen: "tcp://127.0.0.1:0",
  security: "development",
});
const ship = new Endpoint({ nodeId: "ship", security: "development" });
try {
  await harbour.start();
  await ship.start();
  await ship.connect({ nodeId: "harbour", address: harbour.addresses[0]! });

  await ship.send("harbour", encode("ahoy"));
  const heard = await harbour.receive();
  console.log(`harbour heard "${decode(heard.payload)}" from ${heard.from}`);

  // The harbour never dialed the ship: the connection carries messages both ways.
  await harbour.send(heard.from, encode("welcome"));
  const answer = await ship.receive();
  console.log(`ship heard "${decode(answer.payload)}" from ${answer.from}`);
} finally {
  await ship.close();
  await harbour.close();
}
