/** gRPC: a client stream one way, unary calls for requests. */

import { fileURLToPath } from "node:url";
import { type Adapter, messages, meter, type PeerResult, type PeerTask } from "./case.ts";
import { load } from "./package/load.ts";
import { askPromised, checkRequest } from "./requests.ts";

const PROTO = fileURLToPath(new URL("./bench.proto", import.meta.url));

interface Item {
  payload: Uint8Array;
}

type Answer<T> = (error: Error | null, value?: T) => void;

interface PushStream {
  write(item: Item): boolean;
  end(): void;
  once(event: "drain", listener: () => void): void;
}

interface Client {
  push(answer: Answer<object>): PushStream;
  ask(item: Item, answer: Answer<Item>): void;
}

interface Incoming {
  on(event: "data", listener: (item: Item) => void): void;
  on(event: "end", listener: () => void): void;
  on(event: "error", listener: (error: unknown) => void): void;
}

interface Server {
  addService(service: object, handlers: object): void;
  bindAsync(address: string, credentials: object, bound: Answer<number>): void;
}

interface Service {
  new (address: string, credentials: object): Client;
  readonly service: object;
}

interface Package {
  Server: new () => Server;
  ServerCredentials: { createInsecure(): object };
  credentials: { createInsecure(): object };
  loadPackageDefinition(definition: object): { bench: { Bench: Service } };
}

interface Loader {
  load(file: string): Promise<object>;
}

/** One way `write` says when to wait for "drain". */
export const grpc: Adapter = {
  async receive(task, onListening) {
    const { grpc, Bench } = await loadService();
    const server = new grpc.Server();
    return await new Promise<PeerResult>((resolve, reject) => {
      server.addService(Bench.service, handlers(task, resolve, reject));
      const credentials = grpc.ServerCredentials.createInsecure();
      server.bindAsync("127.0.0.1:0", credentials, (error, port) => {
        if (error !== null) reject(error);
        else onListening(`127.0.0.1:${port}`);
      });
    });
  },
  async send(task, address) {
    const { grpc, Bench } = await loadService();
    const client = new Bench(address, grpc.credentials.createInsecure());
    return task.kind === "one-way" ? await push(task, client) : await ask(task, client);
  },
};

async function loadService(): Promise<{ grpc: Package; Bench: Service }> {
  const grpc = await load<Package>("@grpc/grpc-js");
  const loader = await load<Loader>("@grpc/proto-loader");
  return { grpc, Bench: grpc.loadPackageDefinition(await loader.load(PROTO)).bench.Bench };
}

function handlers(
  task: PeerTask,
  resolve: (result: PeerResult) => void,
  reject: (error: unknown) => void,
): object {
  return {
    push(call: Incoming, answer: Answer<object>) {
      const take = meter(task, resolve, reject);
      call.on("data", ({ payload }) => take(payload));
      call.on("error", reject);
      call.on("end", () => answer(null, {}));
    },
    ask({ request }: { request: Item }, answer: Answer<Item>) {
      try {
        checkRequest(task, request.payload);
      } catch (error) {
        reject(error);
      }
      answer(null, request);
    },
  };
}

async function push(task: PeerTask, client: Client): Promise<PeerResult> {
  const ended = Promise.withResolvers<PeerResult>();
  const stream = client.push((error) => error === null ? ended.resolve({}) : ended.reject(error));
  for (const payload of messages(task)) {
    if (stream.write({ payload })) continue;
    await Promise.race([
      new Promise<void>((resolve) => stream.once("drain", resolve)),
      ended.promise,
    ]);
  }
  stream.end();
  return await ended.promise;
}

function ask(task: PeerTask, client: Client): Promise<PeerResult> {
  return askPromised(task, (payload) =>
    new Promise((resolve, reject) => {
      client.ask({ payload }, (error, item) => {
        if (error === null) resolve(item!.payload);
        else reject(error);
      });
    }));
}
