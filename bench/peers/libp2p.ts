/** js-libp2p: TCP, Noise and Yamux; length-prefixed messages on one stream. */

import { type Adapter, messages, meter, type PeerResult, type PeerTask } from "./case.ts";
import { load } from "./package/load.ts";
import { checkRequest, OrderedRequests } from "./requests.ts";

const PROTOCOL = "/bench/1.0.0";

/** The default crypto of Noise has packets up to about this size encrypted by WebAssembly. */
const WASM_BYTES = 1024;

interface Bytes {
  subarray(): Uint8Array;
}

interface MessageStream {
  read(): Promise<Bytes>;
  write(message: Uint8Array | Bytes): Promise<void>;
}

interface Node {
  getMultiaddrs(): { toString(): string }[];
  handle(protocol: string, handler: (stream: object) => Promise<void>): Promise<void>;
  dialProtocol(address: object, protocol: string): Promise<object>;
}

interface Package {
  createLibp2p(options: object): Promise<Node>;
}

interface Noise {
  noise(options?: { crypto: object }): object;
  readonly pureJsCrypto: object;
}

interface Utils {
  lpStream(stream: object): MessageStream;
}

/** One way and to ask, `write` waits where the stream is full. */
export const libp2p: Adapter = {
  async receive(task, onListening) {
    const { lpStream } = await load<Utils>("@libp2p/utils");
    const node = await newNode(task, ["/ip4/127.0.0.1/tcp/0"]);
    const result = Promise.withResolvers<PeerResult>();
    await node.handle(PROTOCOL, async (stream) => {
      const channel = lpStream(stream);
      try {
        if (task.kind === "requests") await answer(task, channel);
        else await measure(task, channel, result.resolve, result.reject);
      } catch (error) {
        result.reject(error);
      }
    });
    onListening(node.getMultiaddrs()[0]!.toString());
    return await result.promise;
  },
  async send(task, address) {
    const { lpStream } = await load<Utils>("@libp2p/utils");
    const { multiaddr } = await load<{ multiaddr(address: string): object }>(
      "@multiformats/multiaddr",
    );
    const node = await newNode(task, []);
    const channel = lpStream(await node.dialProtocol(multiaddr(address), PROTOCOL));
    if (task.kind === "requests") return await ask(task, channel);
    for (const message of messages(task)) await channel.write(message);
    return {};
  },
};

async function newNode(task: PeerTask, listen: string[]): Promise<Node> {
  const { createLibp2p } = await load<Package>("libp2p");
  const { tcp } = await load<{ tcp(): object }>("@libp2p/tcp");
  const { noise, pureJsCrypto } = await load<Noise>("@libp2p/noise");
  // The default takes a cipher of node:crypto for packets above its limit, which Bun does not have.
  const needsPureJs = "Bun" in globalThis && task.bytes > WASM_BYTES;
  const { yamux } = await load<{ yamux(): object }>("@libp2p/yamux");
  return await createLibp2p({
    addresses: { listen },
    transports: [tcp()],
    connectionEncrypters: [needsPureJs ? noise({ crypto: pureJsCrypto }) : noise()],
    streamMuxers: [yamux()],
  });
}

async function measure(
  task: PeerTask,
  channel: MessageStream,
  resolve: (result: PeerResult) => void,
  reject: (error: unknown) => void,
): Promise<void> {
  let over = false;
  const take = meter(task, (result) => {
    over = true;
    resolve(result);
  }, (error) => {
    over = true;
    reject(error);
  });
  while (!over) take((await channel.read()).subarray());
}

async function answer(task: PeerTask, channel: MessageStream): Promise<void> {
  for (;;) {
    const message = (await channel.read()).subarray();
    checkRequest(task, message);
    await channel.write(message);
  }
}

async function ask(task: PeerTask, channel: MessageStream): Promise<PeerResult> {
  const requests = new OrderedRequests(task);
  const read = async () => {
    await fill(channel, requests);
    for (;;) {
      requests.take((await channel.read()).subarray());
      await fill(channel, requests);
    }
  };
  read().catch((error) => requests.fail(error));
  return await requests.result;
}

async function fill(channel: MessageStream, requests: OrderedRequests): Promise<void> {
  for (let request = requests.next(); request !== undefined; request = requests.next()) {
    await channel.write(request);
  }
}
