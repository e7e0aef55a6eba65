/**
 * Jupyter's wire protocol 5.4 (jupyter_client, docs/messaging): framing, signing, verifying. No knowledge of the language.
 * A message is [identities…, '<IDS|MSG>', signature, header, parent_header, metadata, content, buffers…].
 */
import { createHmac, randomUUID, timingSafeEqual } from 'node:crypto';

const DELIMITER = Buffer.from('<IDS|MSG>');
/** Signatures remembered, to refuse a message that is played back. */
const REMEMBERED = 65_536;

/** The connection file that Jupyter hands to a kernel. */
export interface ConnectionInfo {
  readonly transport: string;
  readonly ip: string;
  readonly key: string;
  readonly signature_scheme?: string;
  readonly shell_port: number;
  readonly control_port: number;
  readonly iopub_port: number;
  readonly stdin_port: number;
  readonly hb_port: number;
}

/** A message's header. */
export interface Header {
  readonly msg_id: string;
  readonly session: string;
  readonly username: string;
  readonly date: string;
  readonly msg_type: string;
  readonly version: string;
}

/** A received message. */
export interface Message {
  readonly identities: readonly Uint8Array[];
  readonly header: Header;
  readonly content: Record<string, unknown>;
}

/** A message that is not answered: malformed, not signed by the key's owner, or played back. */
export class WireError extends Error {}

/** Signs and verifies messages with the connection's key. @throws WireError without a key, or for another scheme */
export class Wire {
  /** Identifies this side in the headers of its messages. */
  readonly session = randomUUID();
  private readonly seen = new Set<string>();

  constructor(private readonly connection: Pick<ConnectionInfo, 'key' | 'signature_scheme'>) {
    const { signature_scheme: scheme = 'hmac-sha256', key } = connection;
    // The protocol lets a key be empty, and then takes every message for its owner's.
    if (!key) throw new WireError('a key is needed: without one whoever reaches the ports could run code');
    if (scheme !== 'hmac-sha256') throw new WireError(`signature_scheme ${scheme} is not supported, only hmac-sha256`);
  }

  /** Verifies, then parses. @throws WireError, whose text never holds the wanted signature */
  decode(frames: readonly Buffer[]): Message {
    const at = frames.findIndex((f) => f.equals(DELIMITER));
    if (at < 0 || frames.length < at + 6) throw new WireError('malformed message');
    const signature = frames[at + 1].toString('latin1');
    const parts = frames.slice(at + 2, at + 6);
    const want = Buffer.from(this.sign(parts));
    const got = Buffer.from(signature, 'latin1');
    if (want.length !== got.length || !timingSafeEqual(want, got)) throw new WireError('bad signature');
    if (this.seen.has(signature)) throw new WireError('this message was received before');
    this.seen.add(signature);
    if (this.seen.size > REMEMBERED) this.seen.delete(this.seen.values().next().value!);
    let header: Header;
    let content: Record<string, unknown>;
    try {
      header = JSON.parse(parts[0].toString()) as Header;
      content = JSON.parse(parts[3].toString()) as Record<string, unknown>;
    } catch {
      throw new WireError('malformed message: no JSON');
    }
    if (typeof header?.msg_type !== 'string' || typeof header.msg_id !== 'string') throw new WireError('malformed message: no header');
    for (const k of ['session', 'username', 'date', 'version'] as const) if (header[k] !== undefined && typeof header[k] !== 'string') throw new WireError(`malformed message: '${k}' of the header is no text`);
    if (content === null || typeof content !== 'object' || Array.isArray(content)) throw new WireError('malformed message: the content is no object');
    return { identities: frames.slice(0, at), header, content };
  }

  /** Frames of a message, signed. @param content an object, or its JSON */
  encode(type: string, content: object | string, parent: Header | undefined, identities: readonly Uint8Array[] = [], metadata: object = {}): Buffer[] {
    const header: Header = { msg_id: randomUUID(), session: this.session, username: parent?.username ?? 'kernel', date: new Date().toISOString(), msg_type: type, version: '5.4' };
    const parts = [header, parent ?? {}, metadata, content].map((o) => Buffer.from(typeof o === 'string' ? o : JSON.stringify(o)));
    return [...identities.map((i) => Buffer.from(i)), DELIMITER, Buffer.from(this.sign(parts)), ...parts];
  }

  private sign(parts: readonly Uint8Array[]): string {
    const hmac = createHmac('sha256', this.connection.key);
    for (const p of parts) hmac.update(p);
    return hmac.digest('hex');
  }
}
