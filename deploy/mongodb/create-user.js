// Creates the role and the user of the daemon, or brings the role up to date; it may be run again.
//
//   mongosh 'mongodb://admin@db-1/admin?replicaSet=explorer' deploy/mongodb/create-user.js
//
// The privileges are in role.json beside this file. The one on the whole database is what a change stream asks for;
// it reads, and does not write. Whoever may insert into a collection may create it. Work orders are removed on a server
// without transactions alone: there an order that was put back too late is taken off again.
const role = JSON.parse(require("fs").readFileSync(`${__dirname}/role.json`, "utf8"));
const database = db.getSiblingDB(role.privileges[0].resource.db);

if (database.getRole(role.role)) {
    database.updateRole(role.role, { privileges: role.privileges, roles: role.roles });
} else {
    database.createRole(role);
}
if (!database.getUser(role.role)) {
    print(`The password of the new user ${role.role}:`);
    database.createUser({ user: role.role, pwd: passwordPrompt(), roles: [role.role] });
}
