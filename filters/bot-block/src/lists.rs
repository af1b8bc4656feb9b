//! The lists that come with the filter: what programs call themselves as long as nobody tells them otherwise.

pub const LISTS: &[(&str, &[&str])] = &[
    // Look for holes, and have no business here but by appointment.
    (
        "scanners",
        &[
            "acunetix", "arachni", "burpcollaborator", "censysinspect", "commix", "dirbuster", "expanse", "feroxbuster", "fimap",
            "fuzz faster u fool", "gobuster", "havij", "internetmeasurement", "jaeles", "joomscan", "l9explore", "l9tcpid", "masscan",
            "morfeus", "nessus", "netsparker", "nikto", "nmap scripting engine", "nuclei", "openvas", "paloaltonetworks",
            "sqlmap", "w3af", "wfuzz", "whatweb", "wpscan", "zgrab", "zmeu",
        ],
    ),
    // Collect text for models, or fetch it for their answers.
    (
        "ai",
        &[
            "ai2bot", "amazonbot", "anthropic-ai", "bytespider", "ccbot", "chatgpt-user", "claude-searchbot", "claude-user", "claude-web",
            "claudebot", "cohere-ai", "diffbot", "duckassistbot", "facebookbot", "gptbot", "imagesiftbot", "meta-externalagent",
            "meta-externalfetcher", "mistralai-user", "oai-searchbot", "omgili", "omgilibot", "pangubot", "perplexity-user",
            "perplexitybot", "timpibot", "webzio-extended", "youbot",
        ],
    ),
    // Sell what they find about sites.
    (
        "seo",
        &[
            "ahrefsbot", "ahrefssiteaudit", "barkrowler", "blexbot", "dataforseobot", "dotbot", "linkdexbot", "megaindex", "mj12bot",
            "rogerbot", "screaming frog seo spider", "semrushbot", "seokicks", "serpstatbot", "siteauditbot", "sistrix", "zoominfobot",
        ],
    ),
    // Bring visitors.
    (
        "search",
        &[
            "applebot", "baiduspider", "bingbot", "coccocbot", "duckduckbot", "googlebot", "mojeekbot", "petalbot", "qwantbot",
            "qwantify", "seznambot", "slurp", "sogou", "yandexbot", "yeti",
        ],
    ),
    // Libraries and command lines: also of those who use an API as they should.
    (
        "tools",
        &[
            "aiohttp", "apache-httpclient", "axios", "colly", "curl", "fasthttp", "go-http-client", "guzzlehttp", "httpie", "java", "libcurl",
            "libwww-perl", "lwp", "mechanize", "node-fetch", "okhttp", "perl", "php", "postmanruntime", "powershell", "python-httpx",
            "python-requests", "python-urllib", "reqwest", "ruby", "scrapy", "undici", "wget", "windowspowershell",
        ],
    ),
    // Browsers that nobody sits in front of, if they say so.
    ("headless", &["cypress", "headlesschrome", "phantomjs", "playwright", "puppeteer", "selenium", "slimerjs"]),
];

/// The list of requests that do not say what they are.
pub const EMPTY: &str = "empty";

/// The list of those that say that they are what they are not.
pub const IMPOSTOR: &str = "impostor";
