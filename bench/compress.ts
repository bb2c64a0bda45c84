/**
 * What compression adds on a slow line, with JSON as payload:
 *
 *     deno run -A bench/compress.ts [--runtime deno|bun|node]... [--seconds N] [--repeat N]
 *                                   [--mbit N] [--bytes N]... [--method lz4|zstd]...
 *
 * The sender's connection goes through a proxy in a third process, which lets 100 Mbit/s through in
 * each direction. Without and with compression take turns. What is shown is the rate of the payload
 * at the receiver, and the bits that the proxy let through for it. Every message is checked: its
 * length and its number, and one of sixteen byte by byte.
 *
 * @module
 */

import process from "node:process";
import { parseArgs } from "node:util";
import type { RuntimeName } from "../tools/runtimes.ts";
import { positive, runtimesOf, whole } from "./arguments.ts";
import { type CappedProxy, startProxy } from "./capped_proxy.ts";
import { Flow } from "./flow.ts";
import type { FlowTask } from "./flow_worker.ts";
import { line, machineOf, median } from "./net_table.ts";

type Method = FlowTask["compression"];

/** Until what the system holds in its buffers is full, so that the line alone sets the rate. */
const WARM_UP_MS = 2_000;
const WIDTHS = [8, 10, 8, 28, 12, 8, 16, 20] as const;
/** By how much LZ4 has to be faster than nothing. */
const TARGET = 2.5;

/** One measurement. */
interface Result {
  /** Bytes of messages per second. */
  readonly rate: number;
  /** Bytes per second on the line. */
  readonly line: number;
  readonly senderNs: number;
  readonly receiverNs: number;
}

const { values } = parseArgs({
  options: {
    runtime: { type: "string", multiple: true },
    seconds: { type: "string", default: "3" },
    repeat: { type: "string", default: "3" },
    mbit: { type: "string", default: "100" },
    bytes: { type: "string", multiple: true, default: ["1024", "4096", "16384"] },
    method: { type: "string", multiple: true, default: ["lz4", "zstd"] },
  },
});
const runtimes = runtimesOf(values.runtime);
const seconds = positive("--seconds", values.seconds);
const repeat = whole("--repeat", values.repeat);
const bytesPerSecond = positive("--mbit", values.mbit) * 1e6 / 8;
const methods: readonly Method[] = ["none", ...values.method.map(methodOf)];

const command = `deno run -A bench/compress.ts ${process.argv.slice(2).join(" ")}`.trim();
for (const text of machineOf(command, runtimes)) console.log(text);
console.log(
  `medians (least - most) of ${repeat} x ${seconds} s on a line of ${values.mbit} Mbit/s`,
);
console.log("CPU: processor time per message, sender / receiver");
console.log();
const titles = ["compression", "payload", "line", "ratio", "target", "CPU"];
console.log(line(["", "bytes", ...titles], WIDTHS));
let failed = false;
for (const runtime of runtimes) {
  for (const bytes of values.bytes) await measureAll(runtime, whole("--bytes", bytes));
}
process.exit(failed ? 1 : 0);

async function measureAll(runtime: RuntimeName, bytes: number): Promise<void> {
  const results = methods.map((): Result[] => []);
  const errors = new Set<string>();
  for (let time = 0; time < repeat; time++) {
    for (const [index, method] of methods.entries()) {
      try {
        results[index]!.push(await measure(runtime, bytes, method));
      } catch (error) {
        errors.add(`${method}: ${error instanceof Error ? error.message : String(error)}`);
      }
    }
  }
  for (const [index, method] of methods.entries()) {
    show(runtime, bytes, method, results[index]!, results[0]!);
  }
  for (const error of errors) {
    console.log(line([runtime, String(bytes), `failed: ${error}`], WIDTHS));
  }
  failed ||= errors.size > 0;
}

function show(
  runtime: RuntimeName,
  bytes: number,
  method: Method,
  results: readonly Result[],
  base: readonly Result[],
): void {
  if (results.length === 0) return;
  const of = (key: keyof Result, among = results) => median(among.map((result) => result[key]));
  const rates = results.map(({ rate }) => rate);
  const [middle, least, most] = [median(rates), Math.min(...rates), Math.max(...rates)]
    .map((rate) => (rate / 1e6).toFixed(1));
  const ratio = of("rate") / of("rate", base);
  const target = method === "lz4" ? `>= ${TARGET} ${ratio >= TARGET ? "met" : "not met"}` : "";
  console.log(line([
    runtime,
    String(bytes),
    method,
    `${middle} MB/s (${least} - ${most})`,
    `${(of("line") * 8 / 1e6).toFixed(0)} Mbit/s`,
    method === "none" ? "" : ratio.toFixed(2),
    target,
    `${(of("senderNs") / 1000).toFixed(1)} / ${(of("receiverNs") / 1000).toFixed(1)} us`,
  ], WIDTHS));
}

async function measure(runtime: RuntimeName, bytes: number, method: Method): Promise<Result> {
  const warmUpMs = Math.min(WARM_UP_MS, seconds * 1000);
  const proxies: CappedProxy[] = [];
  const flow = await Flow.start({
    runtime,
    senders: 1,
    receivers: 1,
    bytes,
    payload: "json",
    compression: method,
    limitMs: warmUpMs + seconds * 1000,
    via: async (address) => {
      const proxy = await startProxy(address, bytesPerSecond);
      proxies.push(proxy);
      return proxy.address;
    },
  });
  try {
    await flow.measure(warmUpMs);
    const [before, start] = [proxies[0]!.bytes(), performance.now()];
    const { messagesPerSecond, senderNs, receiverNs } = await flow.measure(seconds * 1000);
    const rate = (proxies[0]!.bytes() - before) / (performance.now() - start) * 1000;
    await flow.stop();
    return { rate: messagesPerSecond * bytes, line: rate, senderNs, receiverNs };
  } finally {
    await flow.kill();
    for (const proxy of proxies) proxy.close();
  }
}

function methodOf(text: string): Method {
  if (text !== "lz4" && text !== "zstd") throw new TypeError("--method: lz4 or zstd");
  return text;
}
