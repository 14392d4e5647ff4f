// As much of mongosh as deploy/mongodb/create-user.js uses: prints the commands that it would send, one a line.
// node mongosh.js SCRIPT PASSWORD [--existing]
const send = (command) => console.log(JSON.stringify(command));
const database = (name) => ({
  getRole: () => (process.argv.includes("--existing") ? {} : null),
  getUser: () => (process.argv.includes("--existing") ? {} : null),
  createRole: ({ role, ...rest }) => send([name, { createRole: role, ...rest }]),
  updateRole: (role, rest) => send([name, { updateRole: role, ...rest }]),
  createUser: ({ user, ...rest }) => send([name, { createUser: user, ...rest }]),
});
globalThis.db = { getSiblingDB: database };
globalThis.print = console.error;
globalThis.passwordPrompt = () => process.argv[3];
require(process.argv[2]);
