//! The rules: patterns over normalised text (normal.zig), in a language that needs no backtracking but for one gap.
//!
//! In a pattern a character stands for itself, in lower case, except:
//!     ^  the character before is no letter, digit or _      $  the same of the one behind
//!     ~  one or more of: space ( ) + ' " `                   _  a space, or nothing
//!     ?  one of ' " `                                        #  one or more digits
//!     %  three or more letters                               *  up to 16 characters
//!     =  one of = < >, or like                               end  at the end of the pattern: nothing behind
//!     !  anything but a space, or the end                      tab  a < or a quote is not far before
//! A backslash makes the next one stand for itself; `_` between letters and `$` before something are themselves.

const std = @import("std");

pub const Class = enum { sqli, xss, traversal, rce };

pub const Rule = struct { id: []const u8, class: Class, score: u8, patterns: []const []const u8 };

pub const all = [_]Rule{
    .{ .id = "sqli-union", .class = .sqli, .score = 5, .patterns = &.{
        "^union~select$", "^union~all~select$", "^union~distinct~select$",
    } },
    .{ .id = "sqli-tautology", .class = .sqli, .score = 5, .patterns = &.{
        "?~or~*=", "?~and~*=", "?_||_*=", "?_&&_*=", "^#~or~#_\\=_#", "^#~and~#_\\=_#", "^#~or~?*?_=", "^#~and~?*?_=",
        "?~or~not~", "?~or~true", "?~or~#$", "?_=_?_or_?", "^#_||_#_=", "?~xor~", "^or~#_\\=_#", "^and~#_\\=_#", "^or ?*?_=", "^and ?*?_=", "? or ??", "?or~*=", 
        "^or a_\\=_a", "^or isnull_(", "?~or~exists~",
        "?~and~ascii_(", "?~and~substring_(", "?~and~(_select", "^#~and~(_select",
    } },
    .{ .id = "sqli-stacked", .class = .sqli, .score = 5, .patterns = &.{
        ";_drop~", ";_delete~from~", ";_insert~into~", ";_update~*~set~", ";_alter~table", ";_create~", ";_exec~", ";_execute~", ";_shutdown",
        ";_truncate~", ";_declare~@", ";_select~", ";_waitfor~",
    } },
    .{ .id = "sqli-comment", .class = .sqli, .score = 5, .patterns = &.{ "?--", "?_--end", "?_-- -", "?)_--", "?))_--", "?)_\\#", "?_;_--", "?/\\*", "/\\*\\!#", "?_\\#", "^#_--end", "^#)_--end", "^#_\\#end", "^true_--end" } },
    .{ .id = "sqli-function", .class = .sqli, .score = 5, .patterns = &.{
        "^sleep_(_#", "^benchmark_(", "^waitfor~delay~", "^pg_sleep_(", "^dbms_pipe.receive_message", "^dbms_lock.sleep", "^extractvalue_(",
        "^updatexml_(", "^load_file_(", "^into~outfile~", "^into~dumpfile~", "^xp_cmdshell", "^xp_dirtree", "^sp_executesql", "^declare~@", "^exec_(_@", "^execute immediate", "^sp_oacreate",
        "^utl_http.request", "^utl_inaddr.get", "^randomblob_(", "^concat_(_0x", "^group_concat_(", "^char_(_#_,", "^chr_(_#_)_||", "^make_set_(",
        "^json_keys_(_(", "^load~data~infile", "^copy~*~program~", "^lo_import_(", "^current_user_(_)", "^database_(_)", "^version_(_)",
    } },
    .{ .id = "sqli-schema", .class = .sqli, .score = 5, .patterns = &.{
        "^information_schema", "^pg_catalog", "^pg_user$", "^pg_shadow", "^sqlite_master", "^sys.tables", "^sysobjects", "^syscolumns", "^mysql.user",
        "@@version", "@@datadir", "^v$version", "^all_tables$", "^user_tables$",
    } },
    .{ .id = "sqli-order", .class = .sqli, .score = 5, .patterns = &.{ "?~order~by~", "?~group~by~", "?~having~", "?~limit~#", "^#~order~by~#", "^#~group~by~#", "^#~having~#", "?~procedure~analyse" } },
    .{ .id = "sqli-select", .class = .sqli, .score = 3, .patterns = &.{ "^select~*~from~", "^insert~into~*~values", "^delete~from~*~where~" } },
    .{ .id = "sqli-subselect", .class = .sqli, .score = 5, .patterns = &.{ "(_select~*~from~", "?~select~*~from~", "^select~@@", "^select~null~", "^select~sleep", "^select~count_(\\*)_from", "^if_(_#_=_#" } },
    .{ .id = "sqli-nosql", .class = .sqli, .score = 5, .patterns = &.{ "[$ne]", "[$gt]", "[$lt]", "[$regex]", "[$where]", "[$nin]", "[$exists]", "$where_:", "?$ne?", "?$gt?", "?$regex?", "^$ne$", "^$gt$" } },

    .{ .id = "xss-script", .class = .xss, .score = 5, .patterns = &.{ "<script", "</script", "<_script" } },
    .{ .id = "xss-handler", .class = .xss, .score = 5, .patterns = &.{ "^on%_\\=\t" } },
    .{ .id = "xss-scheme", .class = .xss, .score = 5, .patterns = &.{ "javascript_:!", "javascript&colon;", "vbscript_:", "livescript_:", "data_:_text/html", "data:image/svg+xml", "j a v a s c r i p t" } },
    .{ .id = "xss-tag", .class = .xss, .score = 5, .patterns = &.{
        "<iframe", "<object", "<embed", "<svg", "<math", "<base", "<meta~", "<link~", "<style", "<body", "<img", "<image", "<video", "<audio", "<details",
        "<marquee", "<template", "<isindex", "<applet", "<frame", "<animate", "<form~", "<input~", "<button~", "<xss", "<xml", "<a~href", "<div~", "<table~",
        "<textarea", "<select~", "<keygen", "<bgsound", "<layer", "<source", "<track", "<portal", "<noscript", "<plaintext", "<html", "<head", "<br~", "<p~", "<\\!doctype", "<\\!entity",
    } },
    .{ .id = "xss-code", .class = .xss, .score = 5, .patterns = &.{
        "document.cookie", "document.write", "document.location", "document.domain", "document[", "window.location", "window[", "^eval_(", "^alert_(", "^alert`", "^alert&", "^prompt_(",
        "^prompt`", "^confirm_(", "^confirm`", "string.fromcharcode", ".innerhtml", ".outerhtml", "^settimeout_(", "^setinterval_(", "^atob_(", "^fetch_(_?", "xmlhttprequest",
        "srcdoc_=", "formaction_=", "xlink:href", "{{*constructor", "constructor.constructor", "^import_(_?", "top[?", "self[?", "this[?", "throw~onerror", "onerror_=",
    } },
    .{ .id = "xss-style", .class = .xss, .score = 3, .patterns = &.{ "expression_(", "-moz-binding", "behavior_:_url", "@import~" } },

    .{ .id = "traversal-dots", .class = .traversal, .score = 5, .patterns = &.{ "../", "..\\", "..;/", "....//", "....\\", "/..end", "..%", "..\xc0\xaf", "..\xc1\x9c" } },
    .{ .id = "traversal-file", .class = .traversal, .score = 5, .patterns = &.{
        "/etc/passwd", "/etc/shadow", "/etc/group", "/etc/hosts", "/etc/issue", "/etc/motd", "/etc/ssh", "/etc/mysql", "/etc/apache", "/etc/nginx", "/etc/crontab", "/proc/self", "/proc/version",
        "/proc/#/", "/.git/", "/.svn/", "/.env", "/.ssh/", ".htaccess", ".htpasswd", "/.aws/", "/.bash_history", "wp-config.php", "web.config", "boot.ini", "win.ini", "system.ini",
        "/windows/system32", "\\windows\\", "c:\\", "c:/windows", "c:/inetpub", "c:/boot", "/var/log/", "/var/www/", "/web-inf/", "/meta-inf/", "id_rsa", "/usr/local/apache", "/.docker", "/.kube/",
    } },
    .{ .id = "traversal-scheme", .class = .traversal, .score = 5, .patterns = &.{ "php://", "file://", "file:/etc", "expect://", "phar://", "zip://", "gopher://", "dict://", "ldap://", "jar:http", "netdoc:" } },
    .{ .id = "traversal-null", .class = .traversal, .score = 5, .patterns = &.{"\x00"} },

    .{ .id = "rce-lookup", .class = .rce, .score = 5, .patterns = &.{ "${jndi:", "${env:", "${lower:", "${sys:", "${::-", "\\#{t(", "${t(", "<\\%\\=", "{php}", "{{config", "{{self", "{{#*#}}", "${#*#}" } },
    .{ .id = "rce-shell", .class = .rce, .score = 5, .patterns = &.{
        "() { ", "/bin/sh", "/bin/bash", "/bin/cat", "cmd.exe", "powershell", ";_cat /", "|_cat /", "&_cat /", ";_ls ", ";_ls -", "|_ls end", "|_ls -", ";_wget ", "|_wget ", ";_curl ", "|_curl ", "|_nc ", ";_nc ",
        "$(id)", "`id`", ";_idend", "|_idend", "&&_idend", "$(whoami)", "`whoami`", ";_whoami", "|_whoami", "&_whoami", ";_uname ", "|_uname ", "$(cat ", "`cat ", ";_ping -", "|_ping -", "&_ping -", ";_sleep #", "|_sleep #", "$(sleep ", "`sleep ",
        "<\\?php", "<\\?\\=", "/dev/tcp/", "${ifs}",
    } },
};
