BEGIN TRANSACTION;
CREATE TABLE approval (
    run_id TEXT, node TEXT, name TEXT NOT NULL, arguments TEXT NOT NULL, asked REAL NOT NULL,
    approved INTEGER, by TEXT, at REAL, reason TEXT, changed_arguments TEXT,
    PRIMARY KEY (run_id, node)
) WITHOUT ROWID;
INSERT INTO "approval" VALUES('waits','turn/3/call/0','refund','{"won":5}',1.79537582899466300005e+09,NULL,NULL,NULL,NULL,NULL);
CREATE TABLE event (
    run_id TEXT, seq INTEGER, body TEXT NOT NULL, PRIMARY KEY (run_id, seq)
) WITHOUT ROWID;
INSERT INTO "event" VALUES('paid',0,'{"type":"run.started","run":"paid","seq":0,"t":0.002101824000419583,"name":"agent","model":"scripted","user":"ann","session":"s"}');
INSERT INTO "event" VALUES('paid',1,'{"type":"turn.started","run":"paid","seq":1,"t":0.0030152549988997635,"turn":1,"model":"scripted","attempt":1}');
INSERT INTO "event" VALUES('paid',2,'{"type":"call.new","run":"paid","seq":2,"t":0.0031486039988521952,"call":"turn/1/call/0","name":"pay","parent":null}');
INSERT INTO "event" VALUES('paid',3,'{"type":"call.arguments","run":"paid","seq":3,"t":0.0031572469997627195,"call":"turn/1/call/0","fragment":"{\"won\": 5}"}');
INSERT INTO "event" VALUES('paid',4,'{"type":"usage","run":"paid","seq":4,"t":0.04862790100014536,"turn":1,"usage":{"input_tokens":0,"output_tokens":0,"cached_tokens":0,"thinking_tokens":0,"cost_usd":null},"cost_usd":null}');
INSERT INTO "event" VALUES('paid',5,'{"type":"turn.finished","run":"paid","seq":5,"t":0.048677754999516765,"turn":1,"reason":"tool_calls","error":null,"model":"scripted"}');
INSERT INTO "event" VALUES('paid',6,'{"type":"call.sealed","run":"paid","seq":6,"t":0.0489942570002313,"call":"turn/1/call/0","arguments":{"won":5},"repaired":[]}');
INSERT INTO "event" VALUES('paid',7,'{"type":"call.started","run":"paid","seq":7,"t":0.05040346799978579,"call":"turn/1/call/0","attempt":1,"early":false}');
INSERT INTO "event" VALUES('paid',8,'{"type":"call.finished","run":"paid","seq":8,"t":0.050981078999029705,"call":"turn/1/call/0","value":"paid 5","source":"run","age_s":null,"ended_s":null}');
INSERT INTO "event" VALUES('paid',9,'{"type":"turn.started","run":"paid","seq":9,"t":0.05113896399961959,"turn":2,"model":"scripted","attempt":1}');
INSERT INTO "event" VALUES('paid',10,'{"type":"text.delta","run":"paid","seq":10,"t":0.051177952000216465,"text":"It is paid.","turn":2,"call":null}');
INSERT INTO "event" VALUES('paid',11,'{"type":"usage","run":"paid","seq":11,"t":0.051265862999571254,"turn":2,"usage":{"input_tokens":0,"output_tokens":0,"cached_tokens":0,"thinking_tokens":0,"cost_usd":null},"cost_usd":null}');
INSERT INTO "event" VALUES('paid',12,'{"type":"turn.finished","run":"paid","seq":12,"t":0.051276078998853336,"turn":2,"reason":"stop","error":null,"model":"scripted"}');
INSERT INTO "event" VALUES('paid',13,'{"type":"run.finished","run":"paid","seq":13,"t":0.05158015199958754,"status":"done","output":"It is paid.","error":null,"tips":[]}');
INSERT INTO "event" VALUES('waits',0,'{"type":"run.started","run":"waits","seq":0,"t":0.0008582399987062672,"name":"agent","model":"scripted","user":"ann","session":"s"}');
INSERT INTO "event" VALUES('waits',1,'{"type":"turn.started","run":"waits","seq":1,"t":0.0009250789989891928,"turn":3,"model":"scripted","attempt":1}');
INSERT INTO "event" VALUES('waits',2,'{"type":"call.new","run":"waits","seq":2,"t":0.001092819000405143,"call":"turn/3/call/0","name":"refund","parent":null}');
INSERT INTO "event" VALUES('waits',3,'{"type":"call.arguments","run":"waits","seq":3,"t":0.0010995289994752966,"call":"turn/3/call/0","fragment":"{\"won\": 5}"}');
INSERT INTO "event" VALUES('waits',4,'{"type":"usage","run":"waits","seq":4,"t":0.001206868999361177,"turn":3,"usage":{"input_tokens":0,"output_tokens":0,"cached_tokens":0,"thinking_tokens":0,"cost_usd":null},"cost_usd":null}');
INSERT INTO "event" VALUES('waits',5,'{"type":"turn.finished","run":"waits","seq":5,"t":0.0012155019994679606,"turn":3,"reason":"tool_calls","error":null,"model":"scripted"}');
INSERT INTO "event" VALUES('waits',6,'{"type":"call.sealed","run":"waits","seq":6,"t":0.0013698019993171329,"call":"turn/3/call/0","arguments":{"won":5},"repaired":[]}');
INSERT INTO "event" VALUES('waits',7,'{"type":"approval.asked","run":"waits","seq":7,"t":0.0013970029995107325,"call":"turn/3/call/0","name":"refund","arguments":{"won":5}}');
INSERT INTO "event" VALUES('waits',8,'{"type":"call.waiting","run":"waits","seq":8,"t":0.0014014190001034876,"call":"turn/3/call/0","waiting_for":"approval","on":[]}');
INSERT INTO "event" VALUES('waits',9,'{"type":"call.cancelled","run":"waits","seq":9,"t":0.001596399999471032,"call":"turn/3/call/0","reason":"the run has ended"}');
INSERT INTO "event" VALUES('waits',10,'{"type":"run.finished","run":"waits","seq":10,"t":0.0016672959991410607,"status":"waiting","output":null,"error":null,"tips":[]}');
CREATE TABLE node (
    run_id TEXT, node TEXT, state TEXT NOT NULL, effect TEXT NOT NULL, tool TEXT NOT NULL, code TEXT NOT NULL,
    attempt INTEGER NOT NULL, arguments TEXT, value TEXT, blob TEXT, error TEXT, by TEXT, changed REAL NOT NULL,
    PRIMARY KEY (run_id, node)
) WITHOUT ROWID;
INSERT INTO "node" VALUES('paid','turn/1/call/0','finished','write','pay','81e2b31e272564c6',1,'{"won":5}','"paid 5"',NULL,NULL,NULL,1.79537582899203324322e+09);
CREATE TABLE run (
    run_id TEXT PRIMARY KEY, name TEXT NOT NULL, code TEXT NOT NULL, user TEXT, session TEXT,
    inputs TEXT NOT NULL, status TEXT NOT NULL, output TEXT, error TEXT, messages TEXT,
    began REAL NOT NULL, changed REAL NOT NULL,
    fence INTEGER NOT NULL, holder TEXT, boot TEXT, until REAL, until_wall REAL
) WITHOUT ROWID;
INSERT INTO "run" VALUES('paid','agent','','ann','s','{"message":{"role":"user","content":"Pay 5 won."},"history":[]}','done','"It is paid."',NULL,'[{"role":"user","content":"Pay 5 won."},{"role":"assistant","text":"","calls":[{"id":"call_1","name":"pay","arguments":"{\"won\": 5}","provider":null}],"thinking":"","refusal":"","provider":[]},{"role":"tool","call_id":"call_1","name":"pay","text":"paid 5","is_error":false},{"role":"assistant","text":"It is paid.","calls":[],"thinking":"","refusal":"","provider":[]}]',1.79537582894234275816e+09,1.79537582899299049373e+09,1,NULL,'5fc0ef1e-0835-44d9-b487-7172aa185e03',12452.284649894,1.79537584394244980811e+09);
INSERT INTO "run" VALUES('waits','agent','','ann','s','{"message":{"role":"user","content":"Give it back."},"history":[]}','waiting','null',NULL,'[{"role":"user","content":"Give it back."},{"role":"assistant","text":"","calls":[{"id":"call_2","name":"refund","arguments":"{\"won\": 5}","provider":null}],"thinking":"","refusal":"","provider":[]}]',1.79537582899346017835e+09,1.7953758289948849678e+09,1,NULL,'5fc0ef1e-0835-44d9-b487-7172aa185e03',12452.335684221,1.79537584399348425865e+09);
CREATE TABLE turn (
    run_id TEXT, turn INTEGER, message TEXT NOT NULL, PRIMARY KEY (run_id, turn)
) WITHOUT ROWID;
INSERT INTO "turn" VALUES('paid',1,'{"message":{"role":"assistant","text":"","calls":[{"id":"call_1","name":"pay","arguments":"{\"won\": 5}","provider":null}],"thinking":"","refusal":"","provider":[]},"nodes":["turn/1/call/0"],"usage":{"input_tokens":0,"output_tokens":0,"cached_tokens":0,"thinking_tokens":0,"cost_usd":null},"reason":"tool_calls"}');
INSERT INTO "turn" VALUES('paid',2,'{"message":{"role":"assistant","text":"It is paid.","calls":[],"thinking":"","refusal":"","provider":[]},"nodes":[],"usage":{"input_tokens":0,"output_tokens":0,"cached_tokens":0,"thinking_tokens":0,"cost_usd":null},"reason":"stop"}');
INSERT INTO "turn" VALUES('waits',3,'{"message":{"role":"assistant","text":"","calls":[{"id":"call_2","name":"refund","arguments":"{\"won\": 5}","provider":null}],"thinking":"","refusal":"","provider":[]},"nodes":["turn/3/call/0"],"usage":{"input_tokens":0,"output_tokens":0,"cached_tokens":0,"thinking_tokens":0,"cost_usd":null},"reason":"tool_calls"}');
CREATE INDEX run_session ON run (session, began);
CREATE INDEX node_blob ON node (blob) WHERE blob IS NOT NULL;
COMMIT;
