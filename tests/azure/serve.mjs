// Serves Azure's blobs by Azurite, with one container, until it is killed: `node serve.mjs PORT FOLDER CONTAINER`. Account and
// key are the emulator's, which everybody knows. Prints `ready` once the container is there.
import { spawn } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { createRequire } from 'node:module';
import { setTimeout as wait } from 'node:timers/promises';

const ACCOUNT = 'devstoreaccount1';
const KEY = 'Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==';
const VERSION = '2021-08-06';

const [port, folder, container] = process.argv.slice(2);

// Authorisation by shared key: everything that is signed stands here in the order of the service's documents.
function signed(path) {
  const date = new Date().toUTCString();
  const empty = '\n'.repeat(12);
  const text = `PUT${empty}x-ms-date:${date}\nx-ms-version:${VERSION}\n/${ACCOUNT}${path}\nrestype:container`;
  const signature = createHmac('sha256', Buffer.from(KEY, 'base64')).update(text, 'utf8').digest('base64');
  return { 'x-ms-date': date, 'x-ms-version': VERSION, Authorization: `SharedKey ${ACCOUNT}:${signature}` };
}

const azurite = createRequire(import.meta.url).resolve('azurite/dist/src/blob/main.js');
const options = ['--blobHost', '127.0.0.1', '--blobPort', port, '--location', folder, '--silent', '--disableTelemetry'];
const server = spawn(process.execPath, [azurite, ...options, '--skipApiVersionCheck'], { stdio: ['ignore', 'ignore', 'inherit'] });
server.on('exit', (code) => {
  console.error(`Azurite ended with ${code}`);
  process.exit(1);
});

const path = `/${ACCOUNT}/${container}`;
for (;;) {
  try {
    const answer = await fetch(`http://127.0.0.1:${port}${path}?restype=container`, { method: 'PUT', headers: signed(path) });
    if (answer.status === 201) break;
    console.error(answer.status, await answer.text());
    process.exit(1);
  } catch {
    // Nobody listens yet.
    await wait(100);
  }
}
console.log('ready');
