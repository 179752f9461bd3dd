/**
 * The bundles of this process's data folder, and the store from which replicas get what they lack. What is fetched
 * lies under its final name only once every digest holds; two processes on one data folder fetch beside each other and
 * one of the two stays.
 */
import { Inject, Injectable, Logger, type OnApplicationBootstrap, type OnApplicationShutdown } from '@nestjs/common';
import { randomUUID } from 'node:crypto';
import { mkdir, readFile, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { Health } from '../common/health.js';
import { Config } from '../config/config.js';
import type { ModelVersionRow } from '../storage/entities/model-version.js';
import { VersionsRepository } from '../storage/versions.repository.js';
import { digest, fileDigest, invalid, parseManifest, readBundle, type Bundle } from './bundle.js';
import { AlteredFile, copyBundle } from './bundle-copy.js';
import { filesOf, removeAbandoned } from './bundle-files.js';
import { BUNDLE_STORE, MANIFEST, type BundleStore } from './bundle-store.js';
import type { BundleFile } from './manifest.js';

export type VersionName = Pick<ModelVersionRow, 'task' | 'version' | 'digest' | 'folder'>;

const TELL_MS = 2_000;

@Injectable()
export class Bundles implements OnApplicationBootstrap, OnApplicationShutdown {
  readonly #log = new Logger(Bundles.name);
  /** By folder. */
  readonly #fetching = new Map<string, Promise<void>>();
  #closing = false;

  constructor(
    @Inject(Config) private readonly config: Config,
    @Inject(VersionsRepository) private readonly versions: VersionsRepository,
    @Inject(BUNDLE_STORE) private readonly store: BundleStore | null,
    @Inject(Health) health: Health,
  ) {
    if (!store) return;
    const check = async () => {
      await store.check();
      return { ok: true };
    };
    // What is served lies in the data folder: a store that is away takes no replica out.
    health.register('bundle store', check, { required: false });
  }

  onApplicationBootstrap(): void {
    void this.#storeWhatIsLacking().catch((error: unknown) => {
      this.#log.error({ err: error }, 'the bundle store cannot be used; what is served here goes on');
    });
  }

  onApplicationShutdown(): void {
    this.#closing = true;
  }

  /** The version's bundle, verified; fetched from the store first where its files here are not all there and whole. */
  async read(version: VersionName): Promise<Bundle> {
    const folder = join(this.config.dataDir, version.folder);
    try {
      return await this.#verified(version, folder);
    } catch (error) {
      if (!this.store || (await wholeFiles(folder, version.digest))) throw error;
    }
    await this.#fetchOnce(version, folder);
    return this.#verified(version, folder);
  }

  /** Puts a bundle into the store, if there is one; before its version is registered, so that all can have it. */
  async keep(folder: string): Promise<void> {
    if (!this.store) return;
    const bundle = await readBundle(folder, { baseModel: this.config.baseModel });
    const { task, version } = bundle.manifest;
    await this.#put({ task, version, digest: bundle.digest }, bundle.folder, filesOf(bundle.manifest));
  }

  async #put(name: Omit<VersionName, 'folder'>, folder: string, files: BundleFile[]): Promise<void> {
    const store = this.store!;
    const telling = this.#telling(`putting version ${name.version} of ${name.task} into ${store.name}`);
    try {
      await store.put(name, folder, files, telling.tell);
    } finally {
      telling.end();
    }
  }

  async #verified(version: VersionName, folder: string): Promise<Bundle> {
    const bundle = await readBundle(folder, { baseModel: this.config.baseModel });
    if (bundle.digest !== version.digest) throw invalid('its manifest is not the one that was registered');
    return bundle;
  }

  #fetchOnce(version: VersionName, folder: string): Promise<void> {
    const running = this.#fetching.get(folder);
    if (running) return running;
    const fetching = this.#fetch(version, folder).finally(() => this.#fetching.delete(folder));
    this.#fetching.set(folder, fetching);
    return fetching;
  }

  async #fetch(version: VersionName, folder: string): Promise<void> {
    const store = this.store!;
    const parent = dirname(folder);
    const beginning = `${basename(folder)}.fetching-`;
    await mkdir(parent, { recursive: true });
    await removeAbandoned(parent, beginning);
    const partial = join(parent, `${beginning}${randomUUID()}`);
    const name = `version ${version.version} of ${version.task}`;
    const telling = this.#telling(`fetching ${name} from ${store.name}`);
    try {
      if (!(await store.has(version))) throw new Error(`${store.name} does not have it`);
      await copyBundle((file) => store.read(version, file), version.digest, partial, telling.tell);
      await putInPlace(partial, folder, version.digest);
      this.#log.log(`${name} was fetched from ${store.name}`);
    } catch (cause) {
      const why = cause instanceof AlteredFile ? this.#altered(version, cause.file) : (cause as Error).message;
      throw invalid(`${name} is not whole here, and not to be had: ${why}`, cause);
    } finally {
      telling.end();
      await rm(partial, { recursive: true, force: true });
    }
  }

  #altered({ task, digest: name }: VersionName, file: string): string {
    return (
      `${file} in ${this.store!.name} is not what was put there; remove ${task}/${name} there, ` +
      'and a replica that has the bundle puts it there again when it starts'
    );
  }

  /** Bundles that were made before there was this store, or while it was empty. */
  async #storeWhatIsLacking(): Promise<void> {
    if (!this.store) return;
    await this.store.check();
    for (const version of await this.versions.names()) {
      if (this.#closing) return;
      const folder = join(this.config.dataDir, version.folder);
      if (await this.store.has(version)) continue;
      const files = await wholeFiles(folder, version.digest);
      if (files) await this.#put(version, folder, files);
    }
  }

  /** Nothing is said of what is quick. */
  #telling(what: string): { tell: (bytes: number) => void; end: () => void } {
    const startedMs = performance.now();
    let bytes = 0;
    const say = () => {
      const seconds = (performance.now() - startedMs) / 1000;
      this.#log.log(`${what}: ${(bytes / 1e6).toFixed(1)} MB in ${seconds.toFixed(0)} s`);
    };
    const timer = setInterval(say, TELL_MS).unref();
    const end = () => {
      clearInterval(timer);
      if (performance.now() - startedMs > TELL_MS) say();
    };
    return { tell: (more) => (bytes += more), end };
  }
}

/** The files of the bundle with that digest; null where the folder has not all of them, byte for byte. */
async function wholeFiles(folder: string, expected: string): Promise<BundleFile[] | null> {
  try {
    const manifest = await readFile(join(folder, MANIFEST));
    if (digest(manifest) !== expected) return null;
    const files = filesOf(parseManifest(manifest));
    for (const { file, sha256 } of files) {
      if ((await fileDigest(join(folder, file))) !== sha256) return null;
    }
    return files;
  } catch {
    return null;
  }
}

/** A folder that has files is not renamed onto: of two processes the second finds the first one's. */
async function putInPlace(partial: string, folder: string, expected: string): Promise<void> {
  try {
    return await rename(partial, folder);
  } catch (error) {
    if (!['ENOTEMPTY', 'EEXIST'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
  }
  if (await wholeFiles(folder, expected)) return;
  // Left by a crash, altered, or another bundle that never became a version.
  const old = `${partial}.old`;
  await rename(folder, old);
  await rename(partial, folder);
  await rm(old, { recursive: true, force: true });
}
