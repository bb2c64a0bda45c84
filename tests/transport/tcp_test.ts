import { describe, it } from "node:test";
import assert from "node:assert/strict";
import * as net from "node:net";
import { detectRuntime } from "../../src/runtime/runtime.ts";
import { tcpTransport } from "../../src/transport/tcp.ts";
import { ContractListener, dialOptions, linkContract } from "./link_contract.ts";
import { LinkRecorder, until } from "./link_recorder.ts";
import { certificateOf, dialerTls, listenerTls, testNodes } from "./tls_nodes.ts";

const transport = tcpTransport(detectRuntime());
const listenAddress = "tcp://127.0.0.1:0";

linkContract("plain TCP", () =>
  Promise.resolve({
    transport,
    listenAddress,
    dialerTls: undefined,
    listenerTls: undefined,
    dialerCertificate: undefined,
    listenerCertificate: undefined,
  }));

linkContract("TLS", async () => {
  const { ca, server } = await testNodes();
  return {
    transport,
    listenAddress,
    dialerTls: dialerTls(ca, undefined, { verifyHostName: true, needPeerCertificate: false }),
    listenerTls: listenerTls(ca, server, { requireClientAuth: false, needPeerCertificate: false }),
    dialerCertificate: undefined,
    listenerCertificate: undefined,
  };
});

linkContract("mutual TLS", async () => {
  const { ca, server, client } = await testNodes();
  return {
    transport,
    listenAddress,
    dialerTls: dialerTls(ca, client),
    listenerTls: listenerTls(ca, server),
    dialerCertificate: certificateOf(client),
    listenerCertificate: certificateOf(server),
  };
});
