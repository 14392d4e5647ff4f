// As much of mongosh as deploy/mongodb/create-user.js uses: prints the commands that it would send, one a line.
// node mongosh.js SCRIPT PASSWORD INDEXES [--existing]; INDEXES is JSON: the indexes that each collection has.
const [script, password, indexes] = process.argv.slice(2);
const existing = JSON.parse(indexes);
const send = (command) => console.log(JSON.stringify(command));
const found = () => (process.argv.includes("--existing") ? {} : null);
const collection = (database, name) => ({
  getIndexes: () => existing[name],
  unhideIndex: (index) => send([database, { collMod: name, index: { name: index, hidden: false } }]),
  dropIndex: (index) => send([database, { dropIndexes: name, index }]),
  createIndex: (key, options) => send([database, { createIndexes: name, indexes: [{ key, ...options }] }]),
});
const database = (name) => ({
  getCollectionNames: () => Object.keys(existing),
  getCollection: (of) => collection(name, of),
  runCommand: (command) => send([name, command]),
  getRole: found,
  getUser: found,
  createRole: ({ role, ...rest }) => send([name, { createRole: role, ...rest }]),
  updateRole: (role, rest) => send([name, { updateRole: role, ...rest }]),
  createUser: ({ user, ...rest }) => send([name, { createUser: user, ...rest }]),
});
globalThis.db = { getSiblingDB: database };
globalThis.print = console.error;
globalThis.passwordPrompt = () => password;
require(script);
