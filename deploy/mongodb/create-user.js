// Creates the role and the user of the daemon, the role of its operators and the indexes that it needs, or brings them
// up to date; it may be run again, and must be after an update of the daemon.
//
//   mongosh 'mongodb://admin@db-1/admin?replicaSet=explorer' deploy/mongodb/create-user.js
//
// With KEEP_DAYS in the environment, such as KEEP_DAYS=90, records in pool-daemon-events that are older are removed; with
// KEEP_DAYS=0 none is. Set events.keep_days of the daemon to the same. Without KEEP_DAYS that stays as it is.
//
// The privileges are in role.json and operator-role.json beside this file, the indexes in indexes.json. The privilege on
// the whole database reads, and does not write: it is what a change stream asks for. Whoever may insert into a collection may create it.
// The role may create no index, for one that expires documents would delete them.
const read = (name) => JSON.parse(require("fs").readFileSync(`${__dirname}/${name}`, "utf8"));
const role = read("role.json");
const database = db.getSiblingDB(role.privileges[0].resource.db);

// A sparse or partial index serves only some queries, and one that expires documents deletes them: they do not count.
const serves = (index) =>
    !index.sparse && !index.partialFilterExpression && !index.collation && index.expireAfterSeconds === undefined;

const collections = database.getCollectionNames();
for (const [name, wanted] of Object.entries(read("indexes.json"))) {
    const existing = collections.includes(name) ? database.getCollection(name).getIndexes() : [];
    for (const keys of wanted) {
        const found = existing.find((index) => serves(index) && JSON.stringify(index.key) === JSON.stringify(keys));
        if (found) {
            if (found.hidden) {
                database.getCollection(name).unhideIndex(found.name);
            }
            continue;
        }
        const usual = Object.entries(keys).flat().join("_");
        const taken = existing.some((index) => index.name === usual);
        print(`Building the index ${JSON.stringify(keys)} of ${name}. On a big collection that takes minutes.`);
        database.getCollection(name).createIndex(keys, { name: taken ? `pool-daemon_${usual}` : usual });
    }
}

const keepDays = process.env.KEEP_DAYS;
if (keepDays !== undefined) {
    const name = "pool-daemon-events";
    const seconds = Number(keepDays) * 86400;
    if (!/^\d{1,5}$/.test(keepDays) || seconds > 20000 * 86400) {
        throw new Error(`KEEP_DAYS: ${keepDays} must be a whole number of days, from 0 to 20000`);
    }
    const existing = collections.includes(name) ? database.getCollection(name).getIndexes() : [];
    const found = existing.find((index) => JSON.stringify(index.key) === '{"at":1}');
    const expires = found?.expireAfterSeconds;
    if (seconds && expires !== undefined) {
        database.runCommand({ collMod: name, index: { keyPattern: { at: 1 }, expireAfterSeconds: seconds } });
    } else if (seconds || expires !== undefined) {
        if (found) {
            database.getCollection(name).dropIndex(found.name);
        }
        if (seconds) {
            database.getCollection(name).createIndex({ at: 1 }, { name: "at_1", expireAfterSeconds: seconds });
        }
    }
}

for (const each of [read("operator-role.json"), role]) {
    if (database.getRole(each.role)) {
        database.updateRole(each.role, { privileges: each.privileges, roles: each.roles });
    } else {
        database.createRole(each);
    }
}
if (!database.getUser(role.role)) {
    print(`The password of the new user ${role.role}:`);
    database.createUser({ user: role.role, pwd: passwordPrompt(), roles: [role.role] });
}
