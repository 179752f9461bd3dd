// An image's HEALTHCHECK: whether this container's process is ready, with what is not in order for `docker inspect`.
const url = `http://127.0.0.1:${process.env.PORT || 3000}/health/ready`;
try {
  const response = await fetch(url, { signal: AbortSignal.timeout(4000) });
  process.stdout.write(await response.text());
  process.exitCode = response.ok ? 0 : 1;
} catch (error) {
  process.stdout.write(`${url}: ${error.cause?.message ?? error.message}`);
  process.exitCode = 1;
}
