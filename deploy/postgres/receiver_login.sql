-- The login of the receiver, which faces the internet: it may insert deliveries, and read none.
-- Run once, when the database is made, before `stageline up`.
\set password `cat /run/secrets/receiver_password`
create role stageline_receiver nologin;
create role receiver login password :'password' in role stageline_receiver;
