// A server as one writes it in Node.js: Nodemailer with its pool.
//
//     node pooled.js PORT SMTP-PORT SESSIONS

const net = require("net");
const nodemailer = require("nodemailer");

const administrator = "helpdesk@example.com";
const [port, smtpPort, sessions] = process.argv.slice(2).map(Number);
const transport = nodemailer.createTransport({
  pool: true, maxConnections: sessions, maxMessages: Infinity, host: "127.0.0.1", port: smtpPort, secure: false,
  ignoreTLS: true,
});
let ticket = 10000;

async function handle(request) {
  const number = ++ticket;
  await transport.sendMail({
    from: administrator, to: request.email, cc: administrator, subject: `[Ticket #${number}] Mailer`,
    text: request.message,
  });
  return { status: "OK", ticket: number };
}

net.createServer((socket) => {
  let buffer = Buffer.alloc(0);
  socket.setNoDelay(true);
  socket.on("error", () => socket.destroy());
  socket.on("data", async (data) => {
    buffer = Buffer.concat([buffer, data]);
    while (buffer.length >= 4 && buffer.length >= 4 + buffer.readUInt32BE(0)) {
      const end = 4 + buffer.readUInt32BE(0);
      const request = JSON.parse(buffer.toString("utf8", 4, end));
      buffer = buffer.subarray(end);
      const reply = await handle(request).catch((error) => ({ status: "ERROR", text: String(error) }));
      const body = Buffer.from(JSON.stringify(reply));
      const head = Buffer.alloc(4);
      head.writeUInt32BE(body.length);
      socket.write(Buffer.concat([head, body]));
    }
  });
}).listen({ port, host: "127.0.0.1", backlog: 1024 });
