/**
 * Listening on Unix sockets.
 *
 * @module
 */

import type { Listener, ListenOptions } from "../transport/transport.ts";
import { listenNode } from "./node_listen.ts";
import { connectionFailed } from "./socket_errors.ts";
import { checkUnixAddress, type UnixAddress } from "./unix_address.ts";
import { SocketFile } from "./unix_file.ts";

/** The permissions of a socket file where none are asked for: its owner alone. */
const DEFAULT_MODE = 0o600;

/** Starts to accept; see {@linkcode Runtime.listen} for what it throws. */
export async function listenUnix(address: UnixAddress, options: ListenOptions): Promise<Listener> {
  checkUnixAddress(address, options);
  if (address.abstract) return await listenNode(address, options);
  const action = `listen on ${address.formatUrl(address.host, 0)}`;
  let file: SocketFile;
  try {
    file = new SocketFile(address.path);
  } catch (cause) {
    throw connectionFailed(action, cause);
  }
  let listener: Listener | undefined;
  try {
    listener = await listenNode({ ...address, path: file.bindPath }, options);
    await file.publish(options.unixMode ?? DEFAULT_MODE);
  } catch (cause) {
    await listener?.close();
    throw listener === undefined ? cause : connectionFailed(action, cause);
  } finally {
    file.removePrivate();
  }
  return fileListener(listener, file);
}

function fileListener(listener: Listener, file: SocketFile): Listener {
  let closed: Promise<void> | undefined;
  const close = () => {
    // First the name, then the socket: a file that refuses connections is one that nobody owns.
    file.remove();
    return listener.close();
  };
  return { address: listener.address, close: () => closed ??= close() };
}
