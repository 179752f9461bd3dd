/**
 * A bundle store in S3 or what speaks its protocol. An object appears whole or not at all, and the manifest's is the last;
 * a file that an earlier writer finished is not sent again. Credentials come by the SDK's default chain.
 */
import { GetObjectCommand, HeadBucketCommand, HeadObjectCommand, PutObjectCommand, S3Client } from '@aws-sdk/client-s3';
import { Upload } from '@aws-sdk/lib-storage';
import { createReadStream } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import type { Config } from '../config/config.js';
import { MANIFEST, type BundleStore, type StoredBundle } from './bundle-store.js';
import type { BundleFile } from './manifest.js';

const PART_BYTES = 16 * 2 ** 20;
const PARTS_AT_ONCE = 2;
const CONNECT_MS = 5_000;
/** Without a byte. */
const SILENT_MS = 60_000;

export class S3Store implements BundleStore {
  readonly name: string;
  readonly #client: S3Client;
  readonly #bucket: string;
  readonly #prefix: string;

  constructor({ bundleStore, s3Endpoint, s3Region, s3PathStyle }: Config) {
    const { host, pathname } = new URL(bundleStore);
    this.name = bundleStore.replace(/\/+$/u, '');
    this.#bucket = host;
    this.#prefix = pathname.split('/').filter(Boolean).join('/');
    this.#client = new S3Client({
      ...(s3Endpoint !== '' && { endpoint: s3Endpoint }),
      ...(s3Region !== '' && { region: s3Region }),
      forcePathStyle: s3PathStyle,
      // What is read is held to its SHA-256.
      responseChecksumValidation: 'WHEN_REQUIRED',
      requestHandler: { connectionTimeout: CONNECT_MS, socketTimeout: SILENT_MS },
    });
  }

  async check(): Promise<void> {
    await this.#try(`bucket ${this.#bucket}`, () => this.#client.send(new HeadBucketCommand({ Bucket: this.#bucket })));
  }

  async has(bundle: StoredBundle): Promise<boolean> {
    return (await this.#find(this.#keyOf(bundle, MANIFEST))) !== undefined;
  }

  async put(bundle: StoredBundle, folder: string, files: BundleFile[], tell: (bytes: number) => void): Promise<void> {
    if (await this.has(bundle)) return;
    for (const { file, sha256 } of files)
      await this.#putFile(this.#keyOf(bundle, file), join(folder, file), sha256, tell);
    const manifest = { Bucket: this.#bucket, Key: this.#keyOf(bundle, MANIFEST), ContentType: 'application/json' };
    const Body = await readFile(join(folder, MANIFEST));
    await this.#try(manifest.Key, () => this.#client.send(new PutObjectCommand({ ...manifest, Body })));
  }

  async read(bundle: StoredBundle, file: string): Promise<Readable> {
    const Key = this.#keyOf(bundle, file);
    const { Body } = await this.#try(Key, () => this.#client.send(new GetObjectCommand({ Bucket: this.#bucket, Key })));
    return Body as Readable;
  }

  async #putFile(Key: string, path: string, sha256: string, tell: (bytes: number) => void): Promise<void> {
    const { size } = await stat(path);
    const there = await this.#find(Key);
    if (there?.size === size && there.sha256 === sha256) return;
    const upload = new Upload({
      client: this.#client,
      params: { Bucket: this.#bucket, Key, Body: createReadStream(path), Metadata: { sha256 } },
      partSize: PART_BYTES,
      queueSize: PARTS_AT_ONCE,
    });
    let told = 0;
    upload.on('httpUploadProgress', ({ loaded = 0 }) => {
      tell(loaded - told);
      told = loaded;
    });
    await this.#try(Key, () => upload.done());
  }

  async #find(Key: string): Promise<{ size: number | undefined; sha256: string | undefined } | undefined> {
    return this.#try(Key, async () => {
      try {
        const found = await this.#client.send(new HeadObjectCommand({ Bucket: this.#bucket, Key }));
        return { size: found.ContentLength, sha256: found.Metadata?.['sha256'] };
      } catch (error) {
        if (error instanceof Error && error.name === 'NotFound') return undefined;
        throw error;
      }
    });
  }

  #keyOf({ task, digest }: StoredBundle, file: string): string {
    return [this.#prefix, task, digest, file].filter((part) => part !== '').join('/');
  }

  /** The SDK's messages often say no more than a name ("UnknownError"): which object it was, and the status, are added. */
  async #try<T>(what: string, action: () => Promise<T>): Promise<T> {
    try {
      return await action();
    } catch (cause) {
      const { name, message, $metadata } = cause as Error & { $metadata?: { httpStatusCode?: number } };
      const status = $metadata?.httpStatusCode === undefined ? '' : ` (HTTP ${$metadata.httpStatusCode})`;
      const text = message === '' || message === name ? name : `${name}: ${message}`;
      throw new Error(`${this.name}: ${what}: ${text}${status}`, { cause });
    }
  }
}
