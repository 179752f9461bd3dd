/** The service's process. Traces of errors name lines of the sources: of our own, the maps of all packages take 11 MB. */
import module from 'node:module';

module.setSourceMapsSupport(true, { nodeModules: false });
await import('./service.js');
