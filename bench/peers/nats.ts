/** NATS: both processes are clients of a server between them. */

import { type Adapter, messages, meter, type PeerResult, type PeerTask } from "./case.ts";
import { load } from "./package/load.ts";
import { askPromised, checkRequest } from "./requests.ts";

const ONE_WAY = "bench.push";
const REQUESTS = "bench.ask";
/** After so many bytes the client waits until the server has them all. */
const FLUSH_BYTES = 1_048_576;

interface Message {
  readonly data: Uint8Array;
  respond(data: Uint8Array): boolean;
}

interface Client {
  subscribe(
    subject: string,
    options: { callback: (error: Error | null, message: Message) => void },
  ): void;
  publish(subject: string, data: Uint8Array): void;
  request(subject: string, data: Uint8Array): Promise<Message>;
  flush(): Promise<void>;
}

interface Package {
  connect(options: { servers: string }): Promise<Client>;
}

/** One way by `publish`, with `flush` to keep the client's buffer small; requests by `request`. */
export const nats: Adapter = {
  async receive(task, onListening) {
    const client = await connect(task);
    const result = Promise.withResolvers<PeerResult>();
    const take = task.kind === "one-way"
      ? meter(task, result.resolve, result.reject)
      : (data: Uint8Array) => checkRequest(task, data);
    client.subscribe(task.kind === "one-way" ? ONE_WAY : REQUESTS, {
      callback: (error, message) => {
        if (error !== null) return result.reject(error);
        try {
          take(message.data);
          if (task.kind === "requests") message.respond(message.data);
        } catch (error) {
          result.reject(error);
        }
      },
    });
    await client.flush();
    onListening(task.broker!);
    return await result.promise;
  },
  async send(task) {
    const client = await connect(task);
    if (task.kind === "requests") {
      return await askPromised(
        task,
        async (message) => (await client.request(REQUESTS, message)).data,
      );
    }
    let unflushed = 0;
    for (const message of messages(task)) {
      client.publish(ONE_WAY, message);
      unflushed += message.length;
      if (unflushed < FLUSH_BYTES) continue;
      unflushed = 0;
      await client.flush();
    }
    await client.flush();
    return {};
  },
};

async function connect(task: PeerTask): Promise<Client> {
  const { connect } = await load<Package>("@nats-io/transport-node");
  return await connect({ servers: task.broker! });
}
