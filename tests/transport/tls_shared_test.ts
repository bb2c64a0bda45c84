/** What dials share: the same certificates, and nothing else; and only until they change. */

import assert from "node:assert/strict";
import type { AddressInfo } from "node:net";
import { describe, it } from "node:test";
import * as tls from "node:tls";
import { detectRuntime } from "../../src/runtime/runtime.ts";
import { TlsMemo } from "../../src/runtime/tls_memo.ts";
import { tcpTransport } from "../../src/transport/tcp.ts";
import type { LinkTls } from "../../src/transport/transport.ts";
import { TestCa } from "../support/certs.ts";
import { ContractListener, dialOptions } from "./link_contract.ts";
import { LinkRecorder, until } from "./link_recorder.ts";
import { certificateOf, dialerTls, listenerTls, testNodes } from "./tls_nodes.ts";

type Changing = { -readonly [Key in keyof LinkTls]: LinkTls[Key] };

const transport = tcpTransport(detectRuntime());

describe("dials with the same settings", () => {
  it("use the certificate, the key and the authorities that are there at the time", async () => {
    const { ca, server, client } = await testNodes();
    const listener = await listen(listenerTls(ca, server));
    const settings: Changing = dialerTls(ca, client);
    assert.deepEqual(await shown(listener, settings), certificateOf(client));
    assert.deepEqual(await shown(listener, settings), certificateOf(client));

    const renewed = await ca.issue("client");
    Object.assign(settings, renewed);
    assert.deepEqual(await shown(listener, settings), certificateOf(renewed));

    settings.ca = (await TestCa.create()).ca;
    const dialing = transport.dial(listener.address, dialOptions(settings));
    await assert.rejects(dialing, { code: "HandshakeFailed" });
    settings.ca = ca.ca;
    assert.deepEqual(await shown(listener, settings), certificateOf(renewed));

    settings.key = client.key;
    await assert.rejects(transport.dial(listener.address, dialOptions(settings)), {
      code: "Config",
    });
    await settled(listener);
  });

  it("verify the host name where that is asked for, whatever was dialed before", async () => {
    const { ca, client } = await testNodes();
    const names = { dnsNames: ["other.example"], ipAddresses: ["10.0.0.1"] };
    const listener = await listen(listenerTls(ca, await ca.issue("server", names)));
    const settings: Changing = dialerTls(ca, client);
    for (const verifyHostName of [false, true, false, true]) {
      settings.verifyHostName = verifyHostName;
      if (verifyHostName) {
        const dialing = transport.dial(listener.address, dialOptions(settings));
        await assert.rejects(dialing, { code: "HandshakeFailed" });
      } else {
        assert.deepEqual(await shown(listener, settings), certificateOf(client));
      }
    }
    await settled(listener);
  });

  it("refuse TLS 1.2", async () => {
    const { ca, server, client } = await testNodes();
    const old = tls.createServer({ ...server, maxVersion: "TLSv1.2" });
    old.on("tlsClientError", () => {});
    old.on("connection", (socket) => socket.on("error", () => {}));
    await new Promise<void>((resolve) => old.listen(0, "127.0.0.1", () => resolve()));
    const { port } = old.address() as AddressInfo;
    const options = dialOptions(dialerTls(ca, client));
    for (let time = 0; time < 2; time++) {
      await assert.rejects(transport.dial(`tcp://127.0.0.1:${port}`, options), {
        code: "HandshakeFailed",
      });
    }
    old.close();
  });

  it("resume no session of a listener that offers them", async () => {
    const { ca, server, client } = await testNodes();
    const reused: boolean[] = [];
    const shownBy: (Uint8Array | undefined)[] = [];
    const generous = tls.createServer({
      ...server,
      ca: ca.ca,
      requestCert: true,
      rejectUnauthorized: true,
      minVersion: "TLSv1.3",
    }, (socket) => {
      socket.on("error", () => {});
      reused.push(socket.isSessionReused());
      shownBy.push(socket.getPeerCertificate()?.raw);
      socket.write("after the tickets");
    });
    await new Promise<void>((resolve) => generous.listen(0, "127.0.0.1", () => resolve()));
    const { port } = generous.address() as AddressInfo;
    const options = dialOptions(dialerTls(ca, client));
    for (let time = 0; time < 3; time++) {
      const link = new LinkRecorder(await transport.dial(`tcp://localhost:${port}`, options));
      await link.until(() => link.receivedBytes > 0);
      assert.deepEqual(link.link.info.peerCertificate, certificateOf(server));
      link.link.close();
      await link.closed();
    }
    generous.close();
    assert.deepEqual(reused, [false, false, false]);
    for (const certificate of shownBy) {
      assert.deepEqual(new Uint8Array(certificate!), certificateOf(client));
    }
  });
});

describe("dials with other settings", () => {
  it("share nothing with those before", async () => {
    const { ca, server, client } = await testNodes();
    const listener = await listen(listenerTls(ca, server));
    const other = await ca.issue("client");
    const stranger = await TestCa.create();
    assert.deepEqual(await shown(listener, dialerTls(ca, client)), certificateOf(client));
    assert.deepEqual(await shown(listener, dialerTls(ca, other)), certificateOf(other));
    const distrusting = dialOptions(dialerTls(stranger, client));
    await assert.rejects(transport.dial(listener.address, distrusting), {
      code: "HandshakeFailed",
    });
    await settled(listener);
  });
});

describe("what is made of settings", () => {
  const settings: Changing = {
    cert: "certificate",
    key: "key",
    ca: undefined,
    requireClientAuth: false,
    verifyHostName: false,
    needPeerCertificate: true,
  };

  it("is made once for each of them, and again after each change", () => {
    const memo = new TlsMemo<object>();
    const first = memo.get(settings, () => ({}));
    assert.equal(memo.get(settings, () => ({})), first);
    assert.notEqual(memo.get({ ...settings }, () => ({})), first);
    for (const name of ["cert", "key", "ca"] as const) {
      const before = memo.get(settings, () => ({}));
      settings[name] = `another ${name}`;
      assert.notEqual(memo.get(settings, () => ({})), before);
    }
  });

  it("is tried again where it could not be made", () => {
    const memo = new TlsMemo<number>();
    const failing = () => {
      throw new Error("unusable");
    };
    assert.throws(() => memo.get(settings, failing), /unusable/);
    assert.throws(() => memo.get(settings, failing), /unusable/);
    assert.equal(memo.get(settings, () => 1), 1);
  });
});

function listen(security: LinkTls): Promise<ContractListener> {
  return new ContractListener().start(transport, "tcp://127.0.0.1:0", { tls: security });
}

/** The certificate that a listener sees of a dialer. */
async function shown(
  listener: ContractListener,
  security: LinkTls,
): Promise<Uint8Array | undefined> {
  const dialed = new LinkRecorder(await transport.dial(listener.address, dialOptions(security)));
  const accepted = await listener.accepted();
  dialed.link.close();
  accepted.close();
  await dialed.closed();
  return accepted.info.peerCertificate;
}

async function settled(listener: ContractListener): Promise<void> {
  await until(() => {
    for (const link of listener.links) link.close();
    return listener.released === listener.admitted;
  }, "releasing");
  await listener.listener.close();
}
